"""When a comparison gives up before all of its runs have begun."""

import time
from pathlib import Path

import pytest

from auxlight import InputError
from auxlight.comparison import Processes, run_all
from tests.comparison.test_compare import comparison


@pytest.fixture
def fit(monkeypatch):
    """Let runs end as a function of method and seed says: with a last line of their log, or finished where it is ""."""
    begun = []

    def install(reason_of):
        def one(words, about, files, folder, cwd, threads):
            begun.append(f"{about['method']} {about['seed']}")
            time.sleep(0.1)
            Path(folder).mkdir(parents=True)
            reason = reason_of(about["method"], about["seed"])
            Path(folder, "log.txt").write_text(f"Seed set to {about['seed']}\n{reason}\n\n")
            if not reason:
                Path(folder, "result.json").write_text("{}")
            return not reason

        monkeypatch.setattr("auxlight.comparison.runner.fit", one)
        return begun

    return install


def test_what_is_missing_to_all_is_said_once(tmp_path, fit, capsys):
    begun = fit(lambda method, seed: "`root` must hold the data. Found none.")
    study = comparison(tmp_path, "single", "human", seeds=range(6))
    with pytest.raises(InputError, match=r"first 2 runs failed for one reason.*`root` must hold the data"):
        run_all(study.runs(), Processes(1))
    assert begun[:2] == ["single 0", "human 0"] and len(begun) <= 4
    assert "failed: data/single/seed 0, see " in capsys.readouterr().err


def test_where_something_has_finished_before_all_are_tried(tmp_path, fit):
    """Started again: what failed alike is no sign that all would."""
    fit(lambda method, seed: "")
    study = comparison(tmp_path, "single", "human", "uniform", seeds=range(2))
    run_all(study.runs()[:1], Processes(1))
    begun = fit(lambda method, seed: "The tasks' gradients must be finite." if method != "single" else "")
    begun.clear()
    assert len(run_all(study.runs(), Processes(1))) == 4 and len(begun) == 5


def test_a_method_that_fails_holds_up_no_other(tmp_path, fit):
    begun = fit(lambda method, seed: "`aux_weight` must be at least 0." if method == "human" else "")
    study = comparison(tmp_path, "human", "single", seeds=range(3))
    assert [run.method for run in run_all(study.runs(), Processes(1))] == ["human"] * 3
    assert len(begun) == 6


def test_methods_that_fail_each_in_its_own_way_are_all_tried(tmp_path, fit):
    begun = fit(lambda method, seed: f"{method} is wrong")
    study = comparison(tmp_path, "human", "single", "uniform", seeds=range(2))
    assert len(run_all(study.runs(), Processes(1))) == len(begun) == 6


def test_what_has_finished_is_kept_at_once(tmp_path, fit):
    fit(lambda method, seed: "")
    study, seen = comparison(tmp_path, "single", "human"), []
    run_all(study.runs(), Processes(1), keep=lambda: seen.append(len(list(tmp_path.rglob("result.json")))))
    assert seen == [1, 2]


def test_after_one_has_finished_all_are_tried(tmp_path, fit):
    begun = fit(lambda method, seed: "" if (method, seed) == ("single", 0) else "No space left on device")
    study = comparison(tmp_path, "single", "human", "uniform", seeds=range(2))
    assert len(run_all(study.runs(), Processes(1))) == 5 and len(begun) == 6
