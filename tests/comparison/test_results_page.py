"""RESULTS.md is what its template and the archives of finished runs make of it."""

import runpy
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/results"
ARCHIVES = sorted(path.parent for path in RESULTS.glob("*/runs.csv"))


def test_the_page_is_made_from_the_archives(monkeypatch):
    monkeypatch.chdir(ROOT)
    made = runpy.run_path(str(RESULTS / "build.py"))
    assert made["build"]((RESULTS / "template.md").read_text(), plots=False) == (ROOT / "RESULTS.md").read_text()


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name)
def test_each_row_says_where_it_comes_from(archive):
    rows = pd.read_csv(archive / "runs.csv", dtype={"commit": str})  # of digits alone it would be a number
    # Of a run that went on after an interruption more than one; none that was changed and not committed.
    assert rows["commit"].str.fullmatch(r"[0-9a-f]{7,}( [0-9a-f]{7,})*").all()
    assert rows["versions"].str.contains("torch ").all()
    for row in rows.itertuples():
        assert f"--seed_everything={row.seed}" in row.command and row.folder.endswith(f"/seed_{row.seed}")
    of_tuning = rows["stage"] == "tuning"
    assert rows.loc[of_tuning, "test_accuracy"].isna().all()  # the test set was not read
    assert not set(rows.loc[of_tuning, "seed"]) & set(rows.loc[~of_tuning, "seed"])
