"""Finished runs as two CSV files, to be kept under version control."""

import csv
import json
from pathlib import Path

import pandas as pd

from auxlight.comparison.results import METRICS, table
from auxlight.comparison.spec import Comparison, Run

RUNS, EPOCHS = "runs.csv", "epochs.csv"


def pack(comparison: Comparison, folder: Path) -> None:
    """Write `runs.csv`, a row for each finished run, and `epochs.csv`, a row for each epoch that was validated.

    Rows of runs that the comparison no longer has, because a config has changed, go.

    Args:
        comparison: whose finished runs, those of the tuning among them.
        folder: of the two files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    runs = _all(comparison)
    table(comparison, runs).to_csv(folder / RUNS, index=False)
    epochs = [
        {"folder": run.key, **row}
        for run in runs
        if run.result.is_file()
        for row in json.loads(run.result.read_text())["epochs"]
    ]
    pd.DataFrame(epochs).to_csv(folder / EPOCHS, index=False)


def unpack(comparison: Comparison, folder: Path) -> int:
    """Put the archive's runs where the comparison looks for them, so that they do not run again.

    Args:
        comparison: whose runs; of others nothing is read.
        folder: of the two files; where there are none, nothing happens.

    Returns:
        Number of runs that were unpacked.
    """
    if not (folder / RUNS).is_file():
        return 0
    rows = _read(folder / RUNS)
    points: dict[str, list[dict[str, float]]] = {}
    for row in _read(folder / EPOCHS):
        values = {name: float(value) for name, value in row.items() if name != "folder"}
        points.setdefault(row["folder"], []).append(values | {"epoch": int(values["epoch"])})
    count = 0
    while True:  # once the tuning is there, the runs of its choices are known
        absent = {run.key: run for run in _all(comparison) if not run.result.is_file()}
        found = [row for row in rows if row["folder"] in absent]
        if not found:
            return count
        for row in found:
            _write(absent[row["folder"]], row, points.get(row["folder"], []))
        count += len(found)


def _all(comparison: Comparison) -> list[Run]:
    return [*comparison.tuning_runs(), *comparison.runs_so_far()]


def _read(path: Path) -> list[dict[str, str]]:
    """Of each row what it has; as text, for pandas of some versions would round the numbers."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def _write(run: Run, row: dict[str, str], epochs: list[dict[str, float]]) -> None:
    last = row.get("last_epochs_accuracy")
    result = {
        "validation": float(row["validation_accuracy"]),
        "test": {f"test/{name}": float(row[f"test_{name}"]) for name in METRICS if f"test_{name}" in row},
        "last_epochs": None if last is None else float(last),
        "epochs": epochs,
        "seconds": float(row["seconds"]),
        "cpu_seconds": float(row["cpu_seconds"]),
        "device": row["device"],
        "commit": row.get("commit", ""),
        "versions": dict(word.split(" ") for word in row["versions"].split(", ")),
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    run.result.write_text(json.dumps(result))
