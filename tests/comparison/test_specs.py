"""The comparisons under `configs/compare`: each is one that can be run."""

from pathlib import Path

import pytest
import yaml

from auxlight.cli import main
from auxlight.comparison import Comparison
from auxlight.comparison.cli import read as read_words

ROOT = Path(__file__).parents[2]
SMALL = ROOT / "configs/compare/small"
SPECS = [path for path in (ROOT / "configs/compare").rglob("*.yaml") if "folder" in yaml.safe_load(path.read_text())]


def read(path: Path) -> Comparison:
    """As the command line reads it; those that tune share their methods."""
    shared = [] if "methods" in yaml.safe_load(path.read_text()) else [f"--config={SMALL / 'methods.yaml'}"]
    return read_words([*shared, f"--config={path}"])[0]


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_is_a_comparison_with_controls(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read(path)
    assert study.reference == "single" and {"single", "uniform"} <= {name.split("_")[0] for name in study.controls}
    assert len(study.seeds) >= 3
    folders = [run.folder for run in study.known_runs()]
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("name", ["few_images", "cifar100_3", "cifar100_20", "cifar100_20_paper"])
def test_every_method_is_given_as_much_tuning(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    study = read(SMALL / f"{name}.yaml")
    assert {len(study.settings(method)) for method in study.methods} == {study.tuning.budget}


def test_every_kind_of_run_is_one_that_the_command_line_takes(monkeypatch, capsys):
    """And its schedule ends with it."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    names = ("cifar100_3", "candidates", "reset", "human_labels")
    study, candidates, reset, fresh = (read(SMALL / f"{name}.yaml") for name in names)
    runs = {run.method: run for run in [*candidates.runs(), *study.tuning_runs()]}
    runs |= {run.method: run for run in reset.runs() if run.method in ("reset_batch", "online")}
    runs |= {"of other images": fresh.runs()[-1]}
    assert len(runs) == 15 + 8 + 2 + 1
    for run in runs.values():
        with pytest.raises(SystemExit) as stop:
            main(["fit", *run.words, "--print_config"])
        assert stop.value.code == 0
        config = yaml.safe_load(capsys.readouterr().out)
        data, model = config["data"]["init_args"], config["model"]["init_args"]
        images, epochs, part = (2500, 24, 4) if run.method in ("reset_batch", "online") else (5000, 30, 1)
        assert data["num_train"] == images and config["trainer"]["max_epochs"] == epochs and model["depth"] == 11
        schedule = model["scheduler"]["init_args"]
        assert part * schedule.get("step_size", schedule.get("total_steps")) == epochs
        assert model["scheduler_interval"] == "epoch"
