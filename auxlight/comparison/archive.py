"""Finished runs as two CSV files, to be kept under version control."""

import csv
import fcntl
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from auxlight.comparison.results import METRICS, table
from auxlight.comparison.spec import Comparison, Run
from auxlight.errors import InputError
from auxlight.outputs import make_folder, write_whole

RUNS, EPOCHS = "runs.csv", "epochs.csv"


def pack(comparison: Comparison, archive: Path | None) -> None:
    """Write `runs.csv`, a row for each finished run, and `epochs.csv`, a row for each epoch that was validated.

    In an archive rows of other runs (of methods, seeds or configs that the comparison does not have) stay as they are.

    Args:
        comparison: whose finished runs, those of the tuning among them.
        archive: folder of the two files; None for the comparison's own.

    Raises:
        InputError: a folder that is none, or files that are no archive.
    """
    folder = archive or comparison.folder
    make_folder(folder, "archive" if archive else "folder")
    with _alone(folder):
        others, points = read_archive(archive) if archive else ([], [])
        runs = [run for run in comparison.known_runs() if run.result.is_file()]
        own = {run.key for run in runs}
        epochs = [{"folder": run.key, **row} for run in runs for row in json.loads(run.result.read_text())["epochs"]]
        _merge(folder / RUNS, table(comparison, runs), [row for row in others if row["folder"] not in own])
        _merge(folder / EPOCHS, pd.DataFrame(epochs), [row for row in points if row["folder"] not in own])


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Comparisons that keep their runs in one folder write one after the other."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _merge(path: Path, own: pd.DataFrame, others: list[dict[str, str]]) -> None:
    # Rows as text, so that none changes on the way.
    rows = [*csv.DictReader(io.StringIO(own.to_csv(index=False))), *others] if len(own) else others
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def unpack(comparison: Comparison, folder: Path) -> int:
    """Put the archive's runs where the comparison looks for them, so that they do not run again.

    Args:
        comparison: whose runs; of others nothing is read.
        folder: of the two files; where there are none, nothing happens.

    Returns:
        Number of runs that were unpacked.

    Raises:
        InputError: a folder that is none, or files that are no archive.
    """
    rows, epochs = read_archive(folder)
    points: dict[str, list[dict[str, float]]] = {}
    for row in epochs:
        values = {name: float(value) for name, value in row.items() if name != "folder"}
        points.setdefault(row["folder"], []).append(values | {"epoch": int(values["epoch"])})
    rows = [row for row in rows if row["folder"] in points or row.get("diverged") == "True"]
    count = 0
    while True:  # once the tuning is there, the runs of its choices are known
        absent = {run.key: run for run in comparison.known_runs() if not run.result.is_file()}
        found = [row for row in rows if row["folder"] in absent]
        if not found:
            return count
        for row in found:
            _write(absent[row["folder"]], row, points.get(row["folder"], []))
        count += len(found)


def read_archive(folder: Path) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Rows of `runs.csv` and of `epochs.csv`, of each what it has; none where there is no archive yet.

    Raises:
        InputError: a folder that is none, or files that are no archive.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"`archive` must be a folder. Found the file {folder}.")
    files = [folder / name for name in (RUNS, EPOCHS)]
    if not any(file.is_file() for file in files):
        return [], []
    tables = []
    for file, needed in zip(files, ({"folder", "validation_accuracy", "versions"}, {"folder", "epoch"}), strict=True):
        # As text, for pandas of some versions would round the numbers.
        with file.open(newline="") if file.is_file() else io.StringIO() as lines:
            rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(lines)]
        if any(not needed <= row.keys() for row in rows) or not file.is_file():
            raise InputError(f"`archive` must hold {RUNS} and {EPOCHS} of `auxlight compare`. Found other in {file}.")
        tables.append(rows)
    return tables[0], tables[1]


def _write(run: Run, row: dict[str, str], epochs: list[dict[str, float]]) -> None:
    last = row.get("last_epochs_accuracy")
    result = {
        "validation": float(row["validation_accuracy"]),
        "test": {f"test/{name}": float(row[f"test_{name}"]) for name in METRICS if f"test_{name}" in row},
        "last_epochs": None if last is None else float(last),
        "epochs": epochs,
        "trained": int(row["epochs"]),
        "diverged": row.get("diverged") == "True",
        "seconds": float(row["seconds"]),
        "cpu_seconds": float(row["cpu_seconds"]),
        "device": row["device"],
        "commit": row.get("commit", ""),
        "versions": dict(word.split(" ") for word in row["versions"].split(", ")),
    }
    run.folder.mkdir(parents=True, exist_ok=True)
    write_whole(run.result, json.dumps(result))
