"""Finished runs under version control: what is in the archive does not run again, and makes the same report."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

from auxlight import InputError
from auxlight.comparison import run_all
from auxlight.comparison.archive import pack, unpack
from auxlight.comparison.cli import main, read
from auxlight.comparison.report import write_report
from auxlight.comparison.results import table
from tests.comparison.test_compare import CONFIGS, comparison, fit_here, pretend
from tests.comparison.test_tuning import study


def test_a_machine_that_ends_takes_nothing_along(tmp_path, monkeypatch):
    """Real runs: the archive alone gives the same table, bit for bit, and the same page."""
    monkeypatch.setattr("sys.argv", ["auxlight"])
    mine, archive = comparison(tmp_path / "runs", "single", "human"), tmp_path / "archive"
    fit_here(*mine.runs())
    pack(mine, archive)
    page, rows = write_report(mine).read_text(), table(mine)
    files = {path.name: path.read_text() for path in archive.iterdir()}
    shutil.rmtree(tmp_path / "runs")
    assert unpack(mine, archive) == 2
    assert run_all(mine.runs()) == []
    pd.testing.assert_frame_equal(table(mine), rows, check_exact=True)
    assert write_report(mine).read_text() == page
    pack(mine, archive)
    assert {path.name: path.read_text() for path in archive.iterdir()} == files
    assert unpack(mine, archive) == 0  # nothing is missing


def test_what_was_tuned_is_not_tuned_again(tmp_path):
    mine, archive = study(tmp_path / "runs"), tmp_path / "archive"
    tuning = mine.tuning_runs()
    for number, run in enumerate(tuning[:-1]):
        pretend(run, 0.7, 0.1 + number / 30)
    pack(mine, archive)
    rows = pd.read_csv(archive / "runs.csv")
    assert rows["stage"].tolist() == ["tuning"] * (len(tuning) - 1)
    pretend(tuning[-1], 0.7, 1 / 3)
    chosen = [mine.chosen("data", method) for method in mine.methods]
    for run in mine.runs():
        pretend(run, 0.1 + 0.2)
    pack(mine, archive)
    shutil.rmtree(tmp_path / "runs")
    assert unpack(mine, archive) == len(tuning) + len(mine.runs())
    assert [mine.chosen("data", method) for method in mine.methods] == chosen
    assert table(mine)["test_accuracy"].tolist() == [0.1 + 0.2] * len(mine.runs())


def test_a_row_says_how_to_repeat_the_run(tmp_path):
    mine = study(tmp_path)
    for run in mine.tuning_runs():
        pretend(run, 0.7)
    rows = table(mine, mine.tuning_runs())
    for run, command, folder in zip(mine.tuning_runs(), rows["command"], rows["folder"], strict=True):
        assert command.startswith("auxlight fit --config ") and f"--seed_everything={run.seed}" in command
        assert all(f"--{name}={value}" in command for name, value in run.setting.items())
        assert tmp_path / folder == run.folder
        assert "callbacks.tested=false" in command and "--test_after_fit=false" in command  # settings are still chosen


def test_an_archive_keeps_what_a_comparison_of_less_does_not_have(tmp_path):
    study, archive = comparison(tmp_path / "a", "single", "uniform", "human", seeds=(0, 1)), tmp_path / "archive"
    for run in study.runs():
        pretend(run, 0.7 + 0.01 * run.seed)
    pack(study, archive)
    files = {path.name: sorted(path.read_text().splitlines()) for path in archive.iterdir()}
    less = comparison(tmp_path / "b", "single", "human", seeds=(0,))
    assert unpack(less, archive) == 2
    pack(less, archive)
    assert {path.name: sorted(path.read_text().splitlines()) for path in archive.iterdir()} == files


def test_without_an_archive_the_table_is_of_this_comparison_alone(tmp_path):
    """Not of the same method with other arguments as well, which nobody could tell apart."""
    for epochs in (1, 2):
        study = comparison(tmp_path, "single", epochs=epochs)
        for run in study.runs():
            pretend(run, 0.7)
        pack(study, None)
        assert pd.read_csv(tmp_path / "runs.csv")["folder"].tolist() == [run.key for run in study.runs()]
        assert set(pd.read_csv(tmp_path / "epochs.csv")["folder"]) == {study.runs()[0].key}


@pytest.mark.parametrize("damage", ["foreign", "merged", "half", "file", "no epochs"])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, damage):
    study, archive = comparison(tmp_path / "a", "single"), tmp_path / "archive"
    for run in study.runs():
        pretend(run, 0.7)
    pack(study, archive)
    shutil.rmtree(tmp_path / "a")
    runs, epochs = archive / "runs.csv", archive / "epochs.csv"
    if damage == "foreign":
        runs.write_text("a,b\n1,2\n")
    elif damage == "merged":
        runs.write_text("<<<<<<< HEAD\n" + runs.read_text())
    elif damage == "half":
        epochs.unlink()
    elif damage == "file":
        archive = runs
    else:
        epochs.write_text(epochs.read_text().splitlines()[0] + "\n")
        assert unpack(study, archive) == 0  # it runs again
        return
    with pytest.raises(InputError) as error:
        unpack(study, archive)
    assert "`archive`" in str(error.value) and "\n" not in str(error.value)


def test_two_comparisons_may_keep_their_runs_in_one_archive(tmp_path):
    studies = [comparison(tmp_path / name, "single", seeds=[seed]) for seed, name in enumerate("ab")]
    for one in studies:
        pretend(one.runs()[0], 0.7)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda i: pack(studies[i % 2], tmp_path / "archive"), range(20)))
    assert sorted(pd.read_csv(tmp_path / "archive/runs.csv")["seed"]) == [0, 1]


def test_an_archive_that_cannot_be_read_for_a_while_holds_no_run_up(tmp_path, monkeypatch, capsys):
    archive = tmp_path / "archive"

    def run(runs, *_, **options):
        for one in runs:
            pretend(one, 0.7)
            options["keep"]()
            (archive / "runs.csv").write_text("<<<<<<< HEAD\nfolder\nx\n")
        return []

    monkeypatch.setattr("auxlight.comparison.cli.run_all", run)
    monkeypatch.setattr("auxlight.comparison.cli.check_arguments", lambda runs: None)
    spec = tmp_path / "study.yaml"
    spec.write_text(f"methods:\n  single: {{configs: ['{CONFIGS}/single.yaml'], control: true}}\nseeds: [0, 1]\n")
    with pytest.raises(InputError, match="safe in"):
        main([f"--config={spec}", f"--folder={tmp_path / 'runs'}", f"--archive={archive}"])
    printed = capsys.readouterr()
    assert "| single | 2 |" in printed.out and printed.err.count("in no table yet") == 2


def test_a_report_alone_leaves_the_archive_as_it_is(tmp_path, capsys):
    archive, spec = tmp_path / "archive", tmp_path / "study.yaml"
    spec.write_text(f"methods:\n  single: {{configs: ['{CONFIGS}/single.yaml'], control: true}}\nseeds: [0]\n")
    words = [f"--config={spec}", f"--folder={tmp_path / 'runs'}", f"--archive={archive}"]
    study = read(words)[0]
    pretend(study.runs()[0], 0.7)
    pack(study, archive)
    runs = archive / "runs.csv"
    runs.write_text(runs.read_text().replace("repeated", "elsewhere"))
    before = {path.name: path.read_text() for path in archive.iterdir()}
    assert "elsewhere" in before["runs.csv"]
    main([*words, "--report_only=true"])
    assert {path.name: path.read_text() for path in archive.iterdir()} == before
    said = capsys.readouterr().out
    assert "| single | 1 |" in said and "runs.csv" not in said  # which may be without runs that are not kept yet


def test_no_archive_yet(tmp_path):
    assert unpack(comparison(tmp_path, "single"), tmp_path / "nowhere") == 0


@pytest.mark.parametrize("changed", ["epochs", "method"])
def test_a_run_that_is_another_now_is_not_taken(tmp_path, changed):
    mine, archive = comparison(tmp_path / "a", "single"), tmp_path / "archive"
    for run in mine.runs():
        pretend(run, 0.7)
    pack(mine, archive)
    other = comparison(tmp_path / "b", *(["single"] if changed == "epochs" else ["uniform"]), epochs=2)
    assert unpack(other, archive) == 0
