import shutil
from pathlib import Path

import fsspec
import pytest
import torch
import yaml

from auxlight.checkpoints import BestCheckpoint
from auxlight.cli import main
from auxlight.parser_errors import parser_cause
from tests.test_cli import QUIET, arguments, score

BEST = "checkpoints/best.ckpt"


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])


def single(*words):
    main([*arguments("single", "data/digits"), "--data.num_train=200", *words])


def csv_logger():
    """In a list, as where there are several."""
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "logs", "name": "run"}}
    Path("loggers.yaml").write_text(yaml.safe_dump({"trainer": {"logger": [logger]}}))
    return "--config=loggers.yaml"


def surpass(checkpoint):
    """Let the best epoch so far be one that no other will reach."""
    content = torch.load(checkpoint, weights_only=True)
    (state,) = (state for key, state in content["callbacks"].items() if "val/accuracy" in key)
    state |= {"best_model_score": torch.tensor(2.0), "kth_value": torch.tensor(2.0)}
    state["best_k_models"] = dict.fromkeys(state["best_k_models"], torch.tensor(2.0))
    torch.save(content, checkpoint)


def epochs(path):
    header, *rows = Path(path).read_text().splitlines()
    return {row.split(",")[header.split(",").index("epoch")] for row in rows} - {""}


def test_a_run_that_was_moved_goes_on_where_it_lies(capsys):
    single(csv_logger())
    kept = shutil.move("logs/run", "logs/kept")
    surpass(f"{kept}/version_0/checkpoints/last.ckpt")
    main(["fit", f"--ckpt_path={kept}/version_0/checkpoints/last.ckpt", "--trainer.max_epochs=2"])
    assert [path.name for path in Path("logs").iterdir()] == ["kept"]
    run = Path(kept, "version_0")
    assert [path.name for path in Path(kept).iterdir()] == ["version_0"]
    assert f"Tested:      {Path(run, BEST).resolve()}" in capsys.readouterr().out.replace("\n", " ")
    assert score(run / "checkpoints/last.ckpt") == 2.0
    assert (epochs(run / "metrics_before_1.csv"), epochs(run / "metrics.csv")) == ({"0", "1"}, {"1", "2"})

    # Its config begins a new run.
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["ckpt_path"] is None
    (logger,) = config["trainer"]["logger"]
    assert logger["init_args"]["version"] is None


@pytest.mark.parametrize("loggers", ["--trainer.logger=true", "--trainer.logger.version=other"])
def test_the_best_epoch_is_remembered_in_another_folder(loggers):
    single()
    run = Path("logs/single/version_0")
    surpass(run / "checkpoints/last.ckpt")
    before = (run / BEST).read_bytes()
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=2", loggers, *QUIET])
    (last,) = (path for path in Path().rglob("last.ckpt") if run not in path.parents)
    assert score(last) == 2.0 and (run / BEST).read_bytes() == before


def test_where_the_best_checkpoint_is_gone_the_next_one_is_the_best():
    single()
    run = Path("logs/single/version_0")
    surpass(run / "checkpoints/last.ckpt")
    (run / BEST).unlink()
    main(["fit", f"--ckpt_path={run}/checkpoints/last.ckpt", "--trainer.max_epochs=2", *QUIET])
    assert 0 < score(run / BEST) < 1


def test_a_config_of_the_users_stays_as_it_is():
    own = Path("config.yaml")
    own.write_text("# mine\ntrainer:\n  logger: false\n")
    with pytest.warns(UserWarning, match="config.yaml is not of a run, and stays"):
        single("--config=config.yaml")
    assert own.read_text() == "# mine\ntrainer:\n  logger: false\n"
    own.write_text("# lightning.pytorch==2.6.6\nseed_everything: 1\n")  # of an earlier run
    single("--trainer.logger=false", "--seed_everything=2")
    assert "seed_everything: 2\n" in own.read_text()


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict"])
def test_an_untrained_network_is_not_evaluated(subcommand, capsys):
    with pytest.raises(SystemExit):
        main(arguments("single", "data/digits", subcommand=subcommand))
    assert "`ckpt_path` must be the checkpoint of a run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--trainer.accelerator=foo"], "invalid accelerator"),
        (["--trainer.strategy=foo"], "invalid strategy"),
        (["--seed_everything=-1"], "-1 is not in bounds"),
        (["--trainer.val_check_interval=1000"], "`val_check_interval`"),
        (["--trainer.logger.save_dir=file"], "cannot be written"),
    ],
)
def test_what_lightning_or_the_disk_refuses_is_one_line(words, part, capsys):
    Path("file").touch()
    with pytest.raises(SystemExit, match="2"):
        single(*words)
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line.startswith("auxlight: error: ") and part in line


def test_predictions_that_cannot_be_written_are_refused_before_they_are_made(capsys):
    Path("file").touch()
    single()
    checkpoint = "--ckpt_path=logs/single/version_0/checkpoints/last.ckpt"
    for path, part in (("file/p.npz", "`predictions.path` must be a file"), ("p", ".npz file")):
        with pytest.raises(SystemExit, match="2"):
            main(["predict", checkpoint, f"--predictions.path={path}"])
        assert part in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["label", checkpoint, "--output=labels.npz"])
    assert "must have a labeler" in capsys.readouterr().err
    assert not Path("labels.npz").exists()


def test_a_misspelt_argument_of_a_function_is_told_apart():
    report = "Problem with given class_path 'torchvision.models.resnet18':\n- Option 'num_clases' is not accepted"
    assert "is it num_classes?" in parser_cause(report)


class Untyped:
    def __init__(self, channels):
        self.channels = channels


@pytest.mark.parametrize(("owner", "hint"), [("Untyped", ": is it channels?"), ("Untyped.make", ""), ("Nope", "")])
def test_a_class_that_tells_little_spoils_no_report(owner, hint):
    report = f"Problem with given class_path '{__name__}.{owner}':\n- Option 'chanels' is not accepted"
    assert f"Option 'chanels' is not accepted{hint}" in parser_cause(report)


def test_the_best_checkpoint_is_found_in_remote_folders():
    """Beside the checkpoint that the run goes on from, or else where it was."""
    storage = fsspec.filesystem("memory")
    storage.pipe("/run/checkpoints/best.ckpt", b"x")
    best = BestCheckpoint()
    best.dirpath = "memory://run/checkpoints"
    for recorded, ckpt_path in (
        ("memory://old/best.ckpt", "memory://run/checkpoints/last.ckpt"),
        ("memory://run/checkpoints/best.ckpt", "last.ckpt"),
    ):
        assert best._find(recorded, ckpt_path) == "memory://run/checkpoints/best.ckpt"
    assert best._find("memory://old/best.ckpt", "memory://old/last.ckpt") == ""
