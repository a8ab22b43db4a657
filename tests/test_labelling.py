"""`auxlight label`: what a run's labeler says, in a file."""

from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import yaml

from auxlight import (
    AgentLabels,
    AuxiliaryTarget,
    DigitsDataModule,
    HumanLabels,
    InputError,
    Labeler,
    MultiHeadVGG,
    RandomLabels,
    RLAuxCallback,
)
from auxlight.cli import main
from auxlight.functional import decided_label
from auxlight.labelling import label_images
from auxlight.run_config import differences
from tests.quiet import TRAINER
from tests.test_cli import arguments, mirrors  # noqa: F401

SMALL = {"depth": 11, "width": 0.0625}


class Used(L.Callback):
    """The labels that each epoch's steps trained with, by position."""

    epochs: list = []  # noqa: RUF012  # of the command line's instance

    def on_train_epoch_start(self, *_):
        self.epochs.append({})

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        target = module.labelled_task.target
        rows = zip(batch.index.tolist(), target.probabilities, target.weight, strict=True)
        self.epochs[-1] |= {index: (probabilities, weight) for index, probabilities, weight in rows}


class PixelLabels(Labeler):
    """Labels and weights that another crop would change."""

    def forward(self, batch, features):
        number = (batch.image.double().abs().sum((1, 2, 3)) * 1000).long()
        target = self.hard_target(self.hierarchy.to_global(batch.primary, number))
        return AuxiliaryTarget(target.probabilities, (number % 97).float())


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])
    Used.epochs = []
    return tmp_path


@pytest.mark.parametrize("method", ["wa_rl", "rl", "wa_rl_shared", "random", "human", "pixels"])
def test_labels_are_those_that_the_last_epoch_trained_with(method, folder, capsys):
    words = [
        *arguments("uniform" if method == "pixels" else method, "data/digits"),
        "--trainer.max_epochs=2",
        "--data.num_train=250",
        "--seed_everything=4",
    ]
    words += ["--trainer.limit_train_batches=1.0", "--data.batch_size=60"]
    if method == "wa_rl_shared":  # whose features would move on within the epoch
        words.append("--model.labeler.snapshot=true")
    if method == "pixels":
        words.append("--model.labeler=tests.test_labelling.PixelLabels")
    main([*words, "--trainer.callbacks+=tests.test_labelling.Used"])
    assert len(Used.epochs) == 2
    checkpoint = next(Path("logs").rglob("last.ckpt"))
    main(["label", f"--ckpt_path={checkpoint}", "--output=out/labels.npz"])
    assert "Labels of 754 images: out/labels.npz" in capsys.readouterr().out
    found = np.load("out/labels.npz")
    assert [(found["split"] == name).sum() for name in ("train", "meta", "val", "test")] == [250, 0, 144, 360]
    place = {index: i for i, index in enumerate(found["index"]) if found["split"][i] == "train"}
    assert len(Used.epochs[1]) == 240  # the last batch would have been incomplete
    for index, (probabilities, weight) in Used.epochs[1].items():
        assert np.array_equal(found["probabilities"][place[index]], probabilities.numpy())
        assert found["label"][place[index]] == decided_label(probabilities[None])
        assert found["weight"][place[index]] == weight
    parity = DigitsDataModule().load_split(True).primary[found["index"][:250]]
    assert np.array_equal(found["primary"][:250], parity.numpy())
    assert found["class_names"].tolist() == ["even", "odd"] and found["psi"].tolist() == [5, 5]
    if method == "pixels":  # where the crop matters, so that the check above means something
        main(["label", f"--ckpt_path={checkpoint}", "--view=plain", "--output=plain.npz"])
        plain = np.load("plain.npz")
        assert np.array_equal(plain["index"], found["index"])
        assert not np.array_equal(plain["probabilities"], found["probabilities"])
        assert np.array_equal(plain["probabilities"][250:], found["probabilities"][250:])


def test_other_subcommands_take_the_runs_own_config_as_well(folder, capsys):
    main([*arguments("single", "data/digits"), "--data.num_train=100", "--trainer.max_epochs=1"])
    checkpoint = next(Path("logs").rglob("last.ckpt"))
    capsys.readouterr()
    main(["test", "--ckpt_path", str(checkpoint)])
    assert "test/accuracy" in capsys.readouterr().out
    main(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_epochs=2"])
    for subcommand in ("test", "predict", "validate"):  # each leaves the run's config as it is
        main([subcommand, "--ckpt_path", str(checkpoint)])
    assert torch.load(checkpoint, weights_only=True)["epoch"] == 1


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        ([], ("ckpt_path", "checkpoint of a run")),
        (["--ckpt_path=nowhere.ckpt"], ("ckpt_path", "nowhere.ckpt")),
    ],
)
def test_without_a_checkpoint_there_is_one_line(words, parts, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["label", *words])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert all(part in error for part in parts) and len(error.splitlines()) == 1


def test_a_single_task_has_no_labels(folder, capsys):
    main([*arguments("single", "data/digits"), "--data.num_train=100"])
    with pytest.raises(SystemExit):
        main(["label", "--ckpt_path", str(next(Path("logs").rglob("last.ckpt")))])
    assert "must have a labeler" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("option", "part"), [("--output=labels.csv", "labels.csv"), ("--view=both", "view")])
def test_wrong_options_are_refused(option, part, folder, capsys):
    main([*arguments("uniform", "data/digits"), "--data.num_train=100"])
    with pytest.raises(SystemExit):
        main(["label", "--ckpt_path", str(next(Path("logs").rglob("last.ckpt"))), option])
    assert part in capsys.readouterr().err.splitlines()[-1]


def test_of_partly_labelled_data_only_the_labelled_images_have_labels():
    data = DigitsDataModule(num_train=200, num_labelled=50, batch_size=20)
    labels = label_images(MultiHeadVGG(data.hierarchy, labeler=HumanLabels(), **SMALL), data)
    train = labels["split"] == "train"
    assert train.sum() == 50 and labels["primary"].min() == 0
    assert np.array_equal(labels["label"], labels["human"])


def test_labelling_leaves_no_trace():
    data = DigitsDataModule(num_train=100, batch_size=20)
    module = MultiHeadVGG(data.hierarchy, labeler=RandomLabels(fixed=False), **SMALL)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    generator = torch.get_rng_state()
    label_images(module, data, epoch=3)
    assert module.training and torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_in_a_script_a_trained_agent_labels_where_it_stands():
    data = DigitsDataModule(num_train=100, batch_size=20)
    module = MultiHeadVGG(data.hierarchy, labeler=AgentLabels(block_relative=True), **SMALL)
    L.Trainer(**TRAINER, max_epochs=1, callbacks=[RLAuxCallback()]).fit(module, data)
    labels = label_images(module, data)
    assert np.array_equal(labels["label"] // 5, labels["primary"])


def test_the_single_task_is_refused_in_a_script_as_well():
    with pytest.raises(InputError, match="must have a labeler"):
        label_images(MultiHeadVGG((5, 5), **SMALL), DigitsDataModule())


@pytest.fixture
def checkpoint(folder):
    main([*arguments("random", "data/digits"), "--data.num_train=100", "--data.batch_size=20"])
    return next(Path("logs").rglob("last.ckpt"))


def test_crops_that_cannot_be_the_runs_are_noted(checkpoint, capsys):
    main(["label", f"--ckpt_path={checkpoint}"])
    assert "Note" not in capsys.readouterr().out
    main(["label", f"--ckpt_path={checkpoint}", "--seed_everything=7", "--data.batch_size=10"])
    out = capsys.readouterr().out
    assert "seed_everything was 0 in the run, and is 7 here" in out and "data.batch_size was 20" in out
    main(["label", f"--ckpt_path={checkpoint}", "--data.num_train=60", "--data.flip=true"])
    out = capsys.readouterr().out
    assert "data.num_train was 100 in the run, and is 60 here" in out and "data.flip was False" in out
    main(["label", f"--ckpt_path={checkpoint}", "--seed_everything=7", "--view=plain"])
    assert "Note" not in capsys.readouterr().out


@pytest.mark.parametrize(("settings", "devices"), [({"accelerator": "auto"}, 4), ({"accelerator": "cpu"}, None)])
def test_all_of_a_machines_devices_are_several(settings, devices, tmp_path, monkeypatch):
    """Where a run was left to take what there is."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"trainer": {"devices": "auto"} | settings}))
    found = differences(str(tmp_path / "checkpoints" / "last.ckpt"), DigitsDataModule())
    assert found == ([f"the run had devices={devices}, num_nodes=1"] if devices else [])


def test_what_is_given_beside_a_checkpoint_lies_over_its_runs_config(checkpoint, capsys):
    Path("over.yaml").write_text("data: {init_args: {num_train: 60}}")
    main(["label", f"--ckpt_path={checkpoint}", "--config=over.yaml", "--output=over.npz"])
    assert (np.load("over.npz")["split"] == "train").sum() == 60


def test_hidden_labels_are_counted(folder, capsys):
    main([*arguments("human", "data/digits"), "--data.num_train=200", "--data.num_labelled=60", "--data.batch_size=20"])
    main(["label", f"--ckpt_path={next(Path('logs').rglob('last.ckpt'))}"])
    out = capsys.readouterr().out
    assert "Labels of 564 images" in out and "Left out: 140 images" in out


def ends_with_one_line(words, capsys, *parts):
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(words)
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert stop.value.code == 2 and len(lines) == 1 and all(part in lines[0] for part in parts), lines


def test_mistakes_about_files_end_with_one_line(checkpoint, capsys, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["loops"]
    bare = checkpoint.with_name("bare.ckpt")
    torch.save(content, bare)
    ends_with_one_line(["label", f"--ckpt_path={bare}"], capsys, "which epoch", "--view plain")
    main(["label", f"--ckpt_path={bare}", "--view=plain"])
    words = [*arguments("random", "data/digits", subcommand="label")[:-4], "--ckpt_path=last"]
    ends_with_one_line(words, capsys, "must be a file", "last")
    Path("isfile").touch()
    ends_with_one_line(["label", f"--ckpt_path={checkpoint}", "--output=isfile/x.npz"], capsys, "`output`", "isfile")
    moved = tmp_path / "moved.ckpt"
    moved.write_bytes(checkpoint.read_bytes())
    ends_with_one_line(["label", f"--ckpt_path={moved}"], capsys, "`--config` must be given", "config.yaml")
    ends_with_one_line(["fit"], capsys, "configs/<method>.yaml")
