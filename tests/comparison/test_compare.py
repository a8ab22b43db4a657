"""`auxlight compare`: real runs in processes of their own, and what is made of them."""

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest

from auxlight import InputError
from auxlight.cli import main
from auxlight.comparison import Common, Comparison, Method, Processes, Tuning, run_all
from auxlight.comparison.archive import pack, unpack
from auxlight.comparison.commands import command
from auxlight.comparison.report import write_report
from auxlight.comparison.results import table

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ["--model.width=0.0625", "--model.depth=11", "--data.num_train=200", "--inspection.every_n_epochs=0"]


def methods(*names):
    return {name: Method([str(CONFIGS / f"{name}.yaml")], control=name in ("single", "uniform")) for name in names}


def comparison(folder, *names, epochs=1, seeds=(0,)):
    scale = Common(
        [str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")], [*TINY, f"--trainer.max_epochs={epochs}"]
    )
    return Comparison(methods(*names), seeds, common=scale, folder=folder)


def pretend(run, test, validation=0.5, seconds=10.0):
    """A finished run."""
    run.folder.mkdir(parents=True)
    epochs = [
        {"epoch": e, "seconds": seconds / 2 * (e + 1), "val/accuracy": validation - 0.1 * (1 - e)} for e in (0, 1)
    ]
    scores = {f"test/{name}": test for name in ("accuracy", "precision", "recall", "f1")}
    result = {
        "validation": validation,
        "test": scores,
        "epochs": epochs,
        "trained": 2,
        "diverged": False,
        "seconds": seconds,
        "commit": "abc",
    }
    result |= {"cpu_seconds": seconds, "device": "CPU"}
    result["versions"] = {"torch": "2.14.1", "lightning": "2.6.6"}
    run.result.write_text(json.dumps(result))


def fit_here(*runs):
    """In this process, without the seconds in which another one imports everything; what diverges ends in an error."""
    for run in runs:
        with contextlib.suppress(SystemExit):
            main(command(run))
        assert run.result.is_file()


def test_runs_are_real_fits_that_are_not_repeated(tmp_path, capsys):
    study = comparison(tmp_path, "single", "wa_rl")
    assert run_all(study.runs()) == []
    rows = table(study)
    assert rows["method"].tolist() == ["single", "wa_rl"] and rows["epochs"].tolist() == [1, 1]
    assert rows["test_accuracy"].between(0, 1).all() and rows["validation_accuracy"].between(0.2, 1).all()
    assert (rows["seconds_per_epoch"] > 0).all() and (rows["trunk/update_norm"] > 0).all()
    assert rows["gradients/labelled_cosine"].isna().tolist() == [True, False]
    assert rows["labels/decided"].isna().tolist() == [True, False]
    page = write_report(study).read_text()
    assert "| method | gradients/" in page and "| method | labels/decided" in page
    about = json.loads((study.runs()[0].folder / "run.json").read_text())
    assert about["command"].startswith("auxlight fit --config") and about["seed"] == 0
    times = [run.result.stat().st_mtime_ns for run in study.runs()]
    capsys.readouterr()
    assert run_all(study.runs()) == []
    assert "2 of 2 runs are finished" in capsys.readouterr().out
    assert times == [run.result.stat().st_mtime_ns for run in study.runs()]


def test_a_run_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    whole, broken = (comparison(tmp_path / name, "single", epochs=6) for name in ("whole", "broken"))
    assert run_all(whole.runs()) == []
    (run,) = broken.runs()
    study = f"comparison({str(tmp_path / 'broken')!r}, 'single', epochs=6)"
    code = f"from tests.comparison.test_compare import *; run_all({study}.runs())"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, cwd=CONFIGS.parent)
    last, end = run.folder / "checkpoints" / "last.ckpt", time.monotonic() + 90
    while not last.is_file() and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with (run.folder / "run.lock").open("w") as lock:  # the run itself, a process of that one, takes a while to die
        fcntl.flock(lock, fcntl.LOCK_EX)
    if run.result.is_file():
        pytest.skip("the run was quicker than the kill")
    assert run_all(broken.runs()) == []
    columns = ["validation_accuracy", "test_accuracy", "test_f1", "epochs"]
    pd.testing.assert_frame_equal(table(whole)[columns], table(broken)[columns])


def test_a_broken_run_is_reported_and_the_others_finish(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["auxlight"])
    wrong = Method([str(CONFIGS / "uniform.yaml")], ["--model.aux_weight=-1"])
    study = tmp_path / "study.yaml"
    study.write_text(
        json.dumps(
            {
                "methods": {
                    "wrong": {"configs": wrong.configs, "arguments": wrong.arguments},
                    "single": {"configs": [str(CONFIGS / "single.yaml")], "control": True},
                },
                "seeds": [0],
                "common": {
                    "configs": [str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")],
                    "arguments": [*TINY, "--trainer.max_epochs=1"],
                },
                "folder": str(tmp_path / "runs"),
            }
        )
    )
    with pytest.raises(SystemExit) as stop:
        main(["compare", "--config", str(study), "--jobs", "2"])
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "1 runs failed" in printed.err
    assert "**1 runs still to come**: 1 of wrong." in printed.out and "| single | 1 |" in printed.out
    log = next((tmp_path / "runs").rglob("wrong/*/seed_0/log.txt"))
    reason = log.read_text().splitlines()[-1]
    assert "aux_weight" in reason and f"see {log}: {reason.removeprefix('auxlight: error: ')}" in printed.err


def test_a_run_that_diverges_is_judged_by_what_it_was_before(tmp_path, monkeypatch):
    """Its rate explodes in the second epoch of three; in the tuning as in the comparison, with a rule or without."""
    monkeypatch.setattr("sys.argv", ["auxlight"])
    explodes = [*TINY, "--trainer.max_epochs=3", "--model.scheduler=StepLR", "--model.scheduler.step_size=1"]
    explodes += ["--model.scheduler.gamma=1e30"]
    own: dict = {"arguments": explodes, "grid": {"model.focal_gamma": [0, 2]}}
    rule = Method([str(CONFIGS / "human.yaml"), str(CONFIGS / "combiners/auxinash.yaml")], **own)
    plain = Method([str(CONFIGS / "human.yaml")], explodes)
    scale = Common([str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")])
    all_methods = {**methods("single"), "rule": rule, "plain": plain}
    study = Comparison(all_methods, [0], common=scale, tuning=Tuning(seeds=[100]), folder=tmp_path / "runs")
    for runs in (study.tuning_runs, study.runs):
        for run in [run for run in runs() if run.method == "single"]:
            pretend(run, 0.5)
        fit_here(*[run for run in runs() if run.method != "single"])
    for method in ("rule", "plain"):
        row = table(study).set_index("method").loc[method]
        assert row["diverged"] and row["epochs"] == 1 and row["test_accuracy"] > 0.3
    page = write_report(study).read_text()
    assert "Runs that diverged, and are judged by their best checkpoint before: rule (1), plain (1)." in page
    pack(study, tmp_path / "archive")
    shutil.rmtree(tmp_path / "runs")
    unpack(study, tmp_path / "archive")
    assert write_report(study).read_text() == page


def test_the_report_says_what_may_be_said(tmp_path):
    study = comparison(tmp_path, "single", "uniform", "human", "random", seeds=range(5))
    for run in study.runs():
        gain = {"single": 0.0, "uniform": 0.02, "human": 0.10, "random": 0.021}[run.method]
        wobble = 0.01 * (run.seed % 3) + 0.003 * ((run.seed * 7 + ord(run.method[0])) % 4)
        pretend(run, 0.6 + gain + wobble, 0.5 + gain, seconds=10.0 + 20 * (run.method == "human"))
    page = write_report(study).read_text()
    assert "Best control by validation accuracy: **uniform**" in page
    assert "Distinguishable from single: uniform, human, random." in page
    assert "Distinguishable from uniform: single, human." in page
    assert "Not distinguishable from uniform: random." in page
    (row,) = [line for line in page.splitlines() if line.startswith("| human ")]
    own = [0.6 + 0.10 + 0.01 * (s % 3) + 0.003 * ((s * 7 + ord("h")) % 4) for s in range(5)]
    assert f"{100 * sum(own) / 5:.1f} ±" in row and "15.0 s = 3.0 ×" in row
    rows = table(study)
    assert len(rows) == 20 and set(rows["commit"]) == {"abc"}
    assert (tmp_path / "curves_data.png").stat().st_size > 5000 and (tmp_path / "bars_data.png").stat().st_size > 5000
    again = write_report(study).read_text()
    assert again == page


def test_the_papers_protocol_is_the_mean_of_the_last_epochs(tmp_path, monkeypatch):
    """Of each, also of those that are not validated."""
    monkeypatch.setattr("sys.argv", ["auxlight"])
    monkeypatch.setattr("auxlight.comparison.spec.PAPERS_EPOCHS", 2)
    words = [*TINY, "--trainer.max_epochs=3", "--trainer.check_val_every_n_epoch=3", "--data.batch_size=50"]
    scale = Common([str(CONFIGS / "data/digits.yaml"), str(CONFIGS / "small.yaml")], words)
    study = Comparison(methods("single"), [0], common=scale, protocol="paper", folder=tmp_path)
    (run,) = study.runs()
    assert run.folder != comparison(tmp_path, "single", epochs=3).runs()[0].folder
    fit_here(run)
    result = json.loads(run.result.read_text())
    assert len(result["epochs"]) == 1 and len(result["test_accuracies"]) == 2
    assert result["last_epochs"] == pytest.approx(sum(result["test_accuracies"]) / 2)
    assert result["test_accuracies"][-1] == pytest.approx(result["test"]["test/accuracy"], abs=1e-6)
    page = write_report(study).read_text()
    assert "last 15 epochs" in page and "F1" not in page
    monkeypatch.chdir(tmp_path)
    with contextlib.suppress(SystemExit):
        main(shlex.split(table(study)["command"][0])[1:])  # as it stands in the table
    again = json.loads((tmp_path / "repeated/result.json").read_text())
    assert again["test_accuracies"] == result["test_accuracies"] and again["test"] == result["test"]


def test_a_run_has_one_process(tmp_path, capsys):
    """A second comparison in the same folder leaves those alone that the first is at."""
    study = comparison(tmp_path, "single")
    (run,) = study.runs()
    run.folder.mkdir(parents=True)
    with (run.folder / "run.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run_all([run]) == []
    assert (
        "left: data/single/seed 0, another process is at it (runs: 0 of 1 finished, 1 left)" in capsys.readouterr().err
    )
    assert not run.result.is_file()


def test_methods_that_share_no_seed_are_not_compared(tmp_path):
    study = comparison(tmp_path, "single", "human", seeds=(0, 1))
    for run in study.runs():
        if (run.method, run.seed) in (("single", 1), ("human", 0)):
            pretend(run, 0.7)
    page = write_report(study).read_text()
    assert "**2 runs still to come**: 1 of single, 1 of human." in page and "| human | 1 |" in page


def test_of_several_data_sets_each_has_a_section_and_rows_are_named_after_both(tmp_path):
    data = {"small": Common(), "large": Common()}
    tuning = Tuning({"model.aux_weight": [1, 4]}, budget=2, seeds=[100])
    study = Comparison(methods("single", "human"), (0,), data=data, tuning=tuning, folder=tmp_path)
    for run in study.tuning_runs():
        if (run.method, run.data) != ("human", "large"):
            pretend(run, 0.7)
    for run in study.runs_so_far():
        pretend(run, 0.7)
    page = write_report(study).read_text()
    assert "## small" in page and "## large" in page
    assert "**Not tuned yet, nor run**: large/human." in page
    assert [line.split(" |")[0] for line in page.splitlines() if "| aux_weight" in line] == [
        "| small/single", "| small/human", "| large/single"
    ]  # fmt: skip


def test_runs_of_different_code_are_pointed_out(tmp_path):
    study = comparison(tmp_path, "single", "human")
    for run in study.runs():
        pretend(run, 0.7)
    assert "differ in" not in write_report(study).read_text()
    result = json.loads(study.runs()[0].result.read_text()) | {"commit": "def"}
    study.runs()[0].result.write_text(json.dumps(result))
    assert "**Runs that are compared differ in commit**" in write_report(study).read_text()


def test_another_config_is_another_run(tmp_path):
    config = tmp_path / "single.yaml"
    config.write_text((CONFIGS / "single.yaml").read_text())
    study = Comparison({"single": Method([str(config)], control=True)}, [0], folder=tmp_path)
    before = study.runs()[0].folder
    config.write_text(config.read_text() + "\n# only a comment\n")
    assert study.runs()[0].folder == before
    config.write_text(config.read_text().replace("lr: 0.01", "lr: 0.02"))
    assert study.runs()[0].folder != before
    part = tmp_path / "data.yaml"
    folders = []
    for size in (50, 10):
        part.write_text(f"batch_size: {size}\n")
        of_parts = Method([str(config)], [f"--data.init_args={part}"], control=True)
        folders.append(Comparison({"single": of_parts}, [0], folder=tmp_path).runs()[0].folder)
    assert folders[0] != folders[1]


def test_each_seed_may_have_images_of_its_own_the_same_for_all_methods(tmp_path):
    make = partial(Comparison, methods("single", "human"), [0, 3], folder=tmp_path)
    shared, own = make(), make(images_by_seed=True)
    tuned = make(images_by_seed=True, tuning=Tuning({"model.focal_gamma": [0, 2]}, seeds=[100]))
    assert not any("--data.seed" in word for run in shared.runs() for word in run.words)
    assert [(run.method, run.seed, run.words[-1]) for run in own.runs()] == [
        (name, seed, f"--data.seed={seed}") for seed in (0, 3) for name in ("single", "human")
    ]
    assert not {run.folder for run in shared.runs()} & {run.folder for run in own.runs()}
    assert {run.words[-1] for run in tuned.tuning_runs()} == {"--data.seed=100"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"methods": {}}, "`methods`"),
        ({"methods": {"a": Method([str(CONFIGS / "single.yaml")])}}, "none a control"),
        ({"seeds": []}, "`seeds`"),
        ({"seeds": [1, 1]}, "`seeds`"),
        ({"reference": "human"}, "`reference`"),
        ({"methods": {"a/b": Method([str(CONFIGS / "single.yaml")], control=True)}}, "'a/b'"),
        ({"common": Common(["nowhere.yaml"])}, "nowhere.yaml"),
        ({"common": Common([], ["--config=over.yaml"])}, "'--config=over.yaml'"),
        ({"methods": {"a": Method([], control=True, grid={"model.aux_weight": [1]})}}, "a `tuning`"),
        ({"images_by_seed": True, "common": Common([], ["--data.seed=1"])}, "`data.seed`"),
        ({"images_by_seed": True, "tuning": Tuning({"data.init_args.seed": [1, 2]})}, "`data.seed`"),
    ],
)
def test_each_mistake_gets_one_line(options, part):
    with pytest.raises(InputError) as error:
        Comparison(**{"methods": methods("single", "human")} | options)
    assert part in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--seedz=[0]"], "is it seeds?"),
        (["--tuning.budgt=2"], "is it budget? `auxlight compare --tuning.help auxlight.comparison.Tuning`"),
        (["--folder=file/study"], "`folder` must be a folder"),
    ],
)
def test_a_mistake_on_the_command_line_gets_one_line(words, part, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(CONFIGS.parent)
    (tmp_path / "file").touch()
    words = [word.replace("file/", f"{tmp_path}/file/") for word in words]
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--config", "configs/compare/small/lambda.yaml", *words])
    assert part in capsys.readouterr().err.strip().splitlines()[-1]


def test_there_must_be_a_job():
    with pytest.raises(InputError, match="`jobs`"):
        Processes(0)
