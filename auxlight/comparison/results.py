"""What finished runs left behind, as a tidy table."""

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from auxlight.comparison.commands import repeating
from auxlight.comparison.spec import Comparison, Run
from auxlight.comparison.statistics import Scores

# Of the labels that the last epoch trained with, their weights, and minus the entropy of the agent.
LABELS = (
    *("labels/decided", "labels/confidence", "labels/effective", "labels/human_ari"),
    *("train/weight_mean", "train/weight_std", "agent/entropy_loss", "agent/reward"),
)
METRICS = ("accuracy", "precision", "recall", "f1")


def table(comparison: Comparison, runs: Sequence[Run] | None = None) -> pd.DataFrame:
    """A row for each finished run: data, method, seed, scores, cost, commit, folder, and the command that repeats it.

    Args:
        comparison: what they are runs of.
        runs: which; by default those of the comparison without those of the tuning.
    """
    rows = []
    for run in comparison.runs_so_far() if runs is None else runs:
        if not run.result.is_file():
            continue
        result = json.loads(run.result.read_text())
        rows.append(
            {
                "stage": run.stage,
                "data": run.data,
                "method": run.method,
                "control": comparison.methods[run.method].control,
                "seed": run.seed,
                "setting": json.dumps(run.setting) if run.setting else "",
                "validation_accuracy": result["validation"],
                **{f"test_{name}": result["test"].get(f"test/{name}", math.nan) for name in METRICS},
                "last_epochs_accuracy": result.get("last_epochs"),
                "epochs": _trained(result),
                "diverged": bool(result.get("diverged")),
                **_means(result["epochs"]),
                **{name: row[name] for row in result["epochs"][-1:] for name in LABELS if name in row},
                "seconds": result["seconds"],
                "cpu_seconds": result["cpu_seconds"],
                "seconds_per_epoch": result["seconds"] / max(1, _trained(result)),
                "device": result["device"],
                "commit": result["commit"],
                "versions": ", ".join(f"{name} {version}" for name, version in result["versions"].items()),
                "folder": run.key,
                "command": repeating(run),
            }
        )
    return pd.DataFrame(rows)


def _trained(result: dict[str, Any]) -> int:
    """Epochs of training; results of old name none, and are of runs that were validated after the last one."""
    return int(result.get("trained", max((row["epoch"] + 1 for row in result["epochs"]), default=0)))


def _means(epochs: list[dict[str, float]]) -> dict[str, float]:
    """Over the epochs, of how far the trunk is pulled and moved."""
    names = sorted({name for row in epochs for name in row if name.startswith(("gradients/", "trunk/"))})
    found = {name: [row[name] for row in epochs if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}


def missing(comparison: Comparison) -> list[Run]:
    """The runs that are not finished, of those methods that have been tuned."""
    return [run for run in comparison.runs_so_far() if not run.result.is_file()]


def scores(rows: pd.DataFrame, column: str) -> Scores:
    """Method → seed → a column's value, of one data set's rows."""
    found: dict[str, dict[int, float]] = {}
    for method, seed, value in zip(rows["method"], rows["seed"], rows[column], strict=True):
        found.setdefault(str(method), {})[int(seed)] = float(value)
    return found


def curves(comparison: Comparison, data: str, name: str) -> dict[str, pd.DataFrame]:
    """Of each method a metric by epoch (rows) and seed (columns)."""
    found: dict[str, dict[int, pd.Series]] = {}
    for run in comparison.runs_so_far():
        if run.data == data and run.result.is_file():
            points = {row["epoch"]: row[name] for row in json.loads(run.result.read_text())["epochs"] if name in row}
            found.setdefault(run.method, {})[run.seed] = pd.Series(points)
    return {method: pd.DataFrame(by_seed) for method, by_seed in found.items()}
