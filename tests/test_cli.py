import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import distributed as dist

from auxlight.cli import main
from auxlight.distributed import leave_devices
from auxlight.parser_errors import parser_cause

CONFIGS = Path(__file__).parent.parent / "configs"
METHODS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "small")
# Two steps of the smallest network that the command line can ask for.
TINY = ["--model.depth=11", "--model.width=0.0625", "--trainer.limit_train_batches=2", "--trainer.max_epochs=1"]
TINY.append("--inspection.every_n_epochs=0")  # half a second each; what it shows is tests/inspection's
LOOK = "--inspection.every_n_epochs=20"
ONE_CYCLE = "torch.optim.lr_scheduler.OneCycleLR"
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]

# Two steps are fewer than AuxiLearn's interval, one epoch ends before there are clusters.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The label network steps every"),
    pytest.mark.filterwarnings("ignore:Clusters are made"),
]


def arguments(*configs, subcommand="fit"):
    names = [CONFIGS / f"{name}.yaml" for name in configs]
    return [subcommand, *(word for name in names for word in ("--config", str(name))), *TINY, *QUIET]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["auxlight"])


@pytest.fixture
def mirrors(tmp_path):
    """Made-up mirrors of every data set, and the user's own arrays."""
    rng = np.random.default_rng(0)

    def images(count):
        return rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8)

    def labels(count, classes):
        return rng.permutation(np.arange(count) % classes)

    root = tmp_path / "mirrors"
    root.mkdir()
    for name, key, classes in (("cifar10", "labels", 10), ("svhn", "labels", 10), ("cifar100", "fine", 100)):
        arrays = {"train_images": images(400), f"train_{key}": labels(400, classes)}
        arrays |= {"test_images": images(100), f"test_{key}": labels(100, classes)}
        np.savez(root / f"{name}.npz", **arrays)
    mnist = {f"{split}_images": images(count)[..., 0] for split, count in (("train", 1200), ("test", 100))}
    np.savez(root / "mnist.npz", **mnist, train_labels=labels(1200, 10), test_labels=labels(100, 10))
    sub = labels(300, 6)
    own = {"train_images": images(300), "train_primary": sub // 3, "train_auxiliary": sub}
    sub = labels(60, 6)
    own |= {"test_images": images(60), "test_primary": sub // 3, "test_auxiliary": sub}
    np.savez(root / "images.npz", **own)
    for split, count in (("train", 40), ("test", 5)):  # and in folders
        for name in ("cat/persian", "cat/siamese", "dog/beagle", "dog/pug"):
            (root / split / name).mkdir(parents=True)
            for i, image in enumerate(images(count)):
                Image.fromarray(image[:, :30]).save(root / split / name / f"{i}.png")
    return root


def event_tags(folder="logs"):
    (folder,) = Path(folder).rglob("version_0")
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_and_tests_on_digits(method, capsys):
    main([*arguments(method, "data/digits", "small"), "--data.num_train=200"])
    out = capsys.readouterr().out
    assert "test/accuracy" in out
    assert "Checkpoints: " in out
    assert "TensorBoard: " in out
    assert (Path("logs") / method / "version_0" / "checkpoints" / "last.ckpt").is_file()
    events = event_tags()
    assert {"train/loss", "val/accuracy", "val/f1", "test/accuracy", "hp/val_accuracy"} <= set(events.Tags()["scalars"])
    assert "_hparams_/session_start_info" in events.summary_metadata
    played = "rl" in method.split("_")
    assert ("agent/reward" in events.Tags()["scalars"]) == played
    assert (
        {"agent/weights", "agent_labels/class_0", "agent_labels/class_1"} <= set(events.Tags()["histograms"])
    ) == played


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_mirror_of_cifar100_without_another_change(method, mirrors):
    main([*arguments(method), "--data.root", str(mirrors)])


# One of each kind of network and loop: full width is slow, and the narrow runs above take every config.
@pytest.mark.parametrize("method", ["auxilearn", "wa_maxl", "wa_rl", "wa_rl_online"])
def test_configs_run_as_they_are_at_full_width(method, mirrors):
    words = [f"--config={CONFIGS / method}.yaml", f"--data.root={mirrors}", "--data.batch_size=4"]
    main(["fit", *words, "--trainer.fast_dev_run=true", *QUIET])


@pytest.mark.parametrize("data", sorted(path.stem for path in (CONFIGS / "data").glob("*.yaml")))
def test_every_data_overlay_composes(data, mirrors, capsys):
    main([*arguments("wa_rl", f"data/{data}", "small"), "--data.root", str(mirrors), "--data.batch_size=50"])
    assert "test/accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("rule", sorted(path.stem for path in (CONFIGS / "combiners").glob("*.yaml")))
def test_every_combiner_composes_with_method_tasks_data_and_scale(rule, capsys):
    main([*arguments("human", "tasks/rotation", f"combiners/{rule}", "data/digits", "small"), "--data.num_train=200"])
    assert "test/accuracy" in capsys.readouterr().out
    by_gradients = not rule.startswith(("auxilearn", "dwa", "gradnorm", "rlw", "slgrad", "uncertainty"))
    by_torchjd = "torchjd" in (CONFIGS / "combiners" / f"{rule}.yaml").read_text()
    logged = set(event_tags().Tags()["scalars"])
    assert "train/rotation_loss" in logged
    assert ("combiner/cosine_rotation" in logged) == by_gradients
    assert ("combiner/weight_labelled" in logged) == (not by_torchjd and rule != "auxilearn_mlp")


@pytest.mark.parametrize("tasks", sorted(path.stem for path in (CONFIGS / "tasks").glob("*.yaml")))
@pytest.mark.parametrize("method", ["single", "wa_rl"])
def test_every_set_of_tasks_composes_with_a_method(method, tasks, capsys):
    main([*arguments(method, f"tasks/{tasks}", "data/digits", "small"), "--data.num_train=200"])
    assert "test/accuracy" in capsys.readouterr().out


BRIEF = ["--trainer.limit_train_batches=2", "--trainer.limit_test_batches=2", "--trainer.max_epochs=1", *QUIET]


@pytest.mark.parametrize(
    ("configs", "words"),
    [
        (["cifar10_ssl"], ["--data.num_labelled=40", "--data.batch_size=8", "--trainer.fast_dev_run=true"]),
        (["cifar10_ssl", "cifar10_ssl_small"], ["--data.num_labelled=80"]),
        (
            ["cifar10_ssl", "cifar10_ssl_small"],
            ["--data.num_labelled=80", "--model.tasks=null", "--model.combiner=null"],
        ),
        (["multi_mnist"], []),
        (["multi_mnist", "../data/multi_digits"], ["--model.combiner.preference=[0.8, 0.2]"]),
    ],
)
def test_every_experiment_runs(configs, words, mirrors, capsys):
    files = [f"--config={CONFIGS / 'experiments' / name}.yaml" for name in configs]
    main(["fit", *files, f"--data.root={mirrors}", "--trainer.accelerator=cpu", *BRIEF, *words])
    assert "test/accuracy" in capsys.readouterr().out


def test_auxinash_by_arguments_alone_resumes_with_its_preferences():
    rule = ["--model.combiner=auxlight.AuxiNash", "--model.combiner.interval=1"]
    common = [*arguments("human", "data/digits", "small"), "--data.num_train=200", *rule]
    main([*common, "--trainer.max_epochs=2"])
    checkpoint = "logs/human/version_0/checkpoints/last.ckpt"
    main([*common, "--trainer.max_epochs=4", f"--ckpt_path={checkpoint}"])
    main([*common, "--trainer.max_epochs=4", "--trainer.logger.init_args.version=whole"])
    resumed, whole = (
        torch.load(f"logs/human/{version}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for version in ("version_0", "whole")
    )
    assert resumed["combiner.preference"].tolist() == whole["combiner.preference"].tolist() != [1, 1]
    momenta = [state["combiner._extra_state"]["state"][0]["momentum_buffer"] for state in (resumed, whole)]
    assert torch.equal(*momenta)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items() if torch.is_tensor(value))


def test_a_torchvision_network_by_yaml(capsys):
    Path("resnet.yaml").write_text(
        """
        model:
          class_path: auxlight.AuxiliaryClassifier
          init_args:
            trunk:
              class_path: torchvision.models.resnet18
              init_args:
                num_classes: 16
            feature_dim: 16
            labeler: auxlight.HumanLabels
        data: auxlight.DigitsDataModule
        """
    )
    main(["fit", "--config=resnet.yaml", "--trainer.accelerator=cpu", *TINY[2:], *QUIET, "--data.num_train=200"])
    assert "test/auxiliary_accuracy" in capsys.readouterr().out


def test_a_checkpoint_tests_validates_predicts_and_resumes(capsys):
    common = [*arguments("wa_rl", "data/digits", "small"), "--data.num_train=200"]
    main(common)
    checkpoint = "logs/wa_rl/version_0/checkpoints/last.ckpt"
    tested = re.findall(r"test/accuracy\D+([\d.]+)", capsys.readouterr().out)
    files = sorted(path for path in Path("logs").rglob("*") if path.is_file())
    for subcommand in ("test", "validate", "predict"):
        main([subcommand, *common[1:], f"--ckpt_path={checkpoint}"])
    assert sorted(path for path in Path("logs").rglob("*") if path.is_file()) == files  # nothing is logged
    assert re.findall(r"test/accuracy\D+([\d.]+)", capsys.readouterr().out) == tested
    predictions = np.load("predictions.npz")
    assert predictions["index"].tolist() == list(range(360))
    np.testing.assert_allclose(predictions["probabilities"].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(predictions["probabilities"].argmax(1), predictions["primary"])
    from sklearn.datasets import load_digits

    accuracy = (predictions["primary"] == load_digits().target[-360:] % 2).mean()
    assert accuracy == pytest.approx(float(tested[0]), abs=1e-6)

    main([*common, f"--ckpt_path={checkpoint}"])
    assert "Nothing was left to train" in capsys.readouterr().out
    longer = ["--trainer.max_epochs=3"]
    main([*common, *longer, f"--ckpt_path={checkpoint}"])  # goes on in its own folder
    assert "Nothing was left to train" not in capsys.readouterr().out
    main([*common, *longer, "--trainer.logger.init_args.version=whole"])
    resumed, whole = (
        torch.load(f"logs/wa_rl/{version}/checkpoints/last.ckpt", weights_only=True)
        for version in ("version_0", "whole")
    )
    assert whole["epoch"] == 2
    assert resumed["state_dict"].keys() == whole["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    best = [score(f"logs/wa_rl/{version}/checkpoints/best.ckpt") for version in ("version_0", "whole")]
    assert best[0] == best[1]


def test_weights_can_be_averaged_beside_an_agent():
    words = [*arguments("wa_rl", "data/digits", "small"), "--data.num_train=200", "--trainer.max_epochs=2"]
    swa = "lightning.pytorch.callbacks.StochasticWeightAveraging"  # copies the module, before the test, too
    main([*words, f"--trainer.callbacks+={swa}", "--trainer.callbacks.swa_lrs=0.05"])
    assert Path("logs/wa_rl/version_0/checkpoints/best.ckpt").is_file()


def score(path):
    (state,) = (s for k, s in torch.load(path, weights_only=True)["callbacks"].items() if "val/accuracy" in k)
    return state["best_model_score"]


def test_a_test_is_logged_where_a_logger_is_named(single_checkpoint):
    words = [*arguments("single", "data/digits", subcommand="test"), "--data.num_train=200", single_checkpoint]
    main([*words, "--trainer.logger.init_args.version=tested"])
    (folder,) = Path("logs").rglob("tested")
    assert "test/accuracy" in EventAccumulator(str(folder)).Reload().Tags()["scalars"]


def test_the_same_seed_gives_the_same_weights():
    for seed in (1, 1, 2):
        main([*arguments("random", "data/digits", "small"), "--data.num_train=200", f"--seed_everything={seed}"])
    one, same, other = (
        torch.load(f"logs/random/version_{i}/checkpoints/last.ckpt", weights_only=True)["state_dict"] for i in range(3)
    )
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["primary_head.0.weight"], other["primary_head.0.weight"])


def damage(root):
    """A mirror cut short, as after a broken copy."""
    path = root / "cifar100.npz"
    path.write_bytes(path.read_bytes()[:-1000])


def drop_a_key(root):
    with np.load(root / "cifar100.npz") as archive:
        arrays = {key: archive[key] for key in archive.files if key != "test_fine"}
    np.savez(root / "cifar100.npz", **arrays)


def change(**replaced):
    def apply(root):
        with np.load(root / "cifar100.npz") as archive:
            arrays = {key: archive[key] for key in archive.files}
        np.savez(root / "cifar100.npz", **(arrays | {key: edit(arrays[key]) for key, edit in replaced.items()}))

    return apply


@pytest.mark.parametrize(
    ("words", "prepare", "expected"),
    [
        (["--data.root=nowhere"], None, r"put nowhere/cifar100.npz there .*download: true"),
        ([], damage, r"cifar100.npz must be a .npz file"),
        ([], drop_a_key, r"array `test_fine`"),
        ([], change(train_fine=lambda labels: labels + 1), r"0 … 99. Found 1 … 100"),
        ([], change(train_images=lambda images: images[:, :, :, 0:2]), r"`train_images` .*\(400, 32, 32, 2\)"),
        ([], change(train_images=lambda images: images[:, ::2, ::2]), r"at least 32 × 32 .*16 × 16"),
        (["--data.psi=4"], None, r"`psi` must fit the human sub-labels"),
        (["--data.auxiliary_level=null", "--data.psi=0"], None, r"`psi` must be a positive integer"),
        (["--data.auxiliary_level=null", "--data.psi=[2,3]"], None, r"list of 20"),
        (["--model.aux_weight=-1"], None, r"`aux_weight` must be a finite number ≥ 0. Found aux_weight=-1.0"),
        (["--model.aux_weight=.nan"], None, r"`aux_weight` .*nan"),
        (["--model.focal_gamma=-1"], None, r"`focal_gamma`"),
        (["--data.num_train=5000"], None, r"`num_train` .*5000"),
        (["--data.num_train=99"], None, r"`num_train` must lie between 100"),
        (["--data.val_split=0"], None, r"`val_split` .*empty"),
        (["--data.batch_size=1000"], None, r"`batch_size` must not exceed the 360 training images"),
        (["--model.labeler=auxlight.Nope"], None, r"model.labeler: auxlight.Nope: auxlight has no Nope$"),
        (["--model.labeler=auxlight.HumanLabel"], None, r"has no HumanLabel: is it auxlight.HumanLabels\?$"),
        (["--model.aux_weight=four"], None, r"model.aux_weight: .*must be a number. Found four"),
        (["--model=nowhere.Model"], None, r"No module named 'nowhere'"),
        (["--model.optimizer=torch.optim.Nope"], None, r"model.optimizer: .*torch.optim has no Nope"),
        (["--model.aux_wieght=1"], None, r"Option 'aux_wieght' is not accepted: is it aux_weight\?"),
        (["--data.batchsize=9"], None, r"data: auxlight.CIFAR100.* is it batch_size\? `.*--data.help auxlight.CIFAR"),
        (["--model.optimizer.dampning=1"], None, r"torch.optim.SGD: .* is it dampening\? `.*optimizer.help torch.opt"),
        (["--trainer.max_epochz=9"], None, r"unrecognized arguments: --trainer.max_epochz=9: is it trainer.max_epochs"),
        (["--trainer.callbacks=auxlight.Nope"], None, r"trainer.callbacks: auxlight.Nope"),
        (["--trainer.callbacks=auxlight.RLAuxCallback"], None, r"RLAuxCallback needs .*Found labeler HumanLabels"),
        (["--model.labeler=auxlight.AgentLabels"], None, r"add RLAuxCallback"),
        (["--config=nowhere.yaml"], None, r"nowhere.yaml"),
        (["--ckpt_path=nowhere.ckpt"], None, r"`ckpt_path` must be a checkpoint. Found no file nowhere.ckpt"),
        (["--trainer.accelerator=gpu", "--trainer.devices=99"], None, r"(?i)gpu|cuda"),
        (["--trainer.limit_train_batches=1.5"], None, r"limit_train_batches"),
        (["--trainer.overfit_batches=1"], None, r"`overfit_batches` .*num_train"),
        (["--model.optimizer.lr=-1"], None, r"`optimizer` .*learning rate"),
        (["--model.head_dim=0"], None, r"`head_dim`"),
        (["--model.combiner=auxlight.AuxiNash", "--model.combiner.interval=0"], None, r"`interval`"),
        (["--model.combiner=auxlight.AuxiNash", "--model.combiner.preference=[1]"], None, r"each of the 2 tasks"),
        (["--model.combiner=auxlight.SLGrad"], None, r"judges the tasks on held-out .* Found meta_split=0"),
        (["--model.combiner=auxlight.Aggregation"], None, r"arguments are required: aggregator"),
        (
            ["--model.combiner=auxlight.Aggregation", "--model.combiner.aggregator=torchjd.aggregation.Nope"],
            None,
            r"has no Nope",
        ),
        (["--model.tasks=[auxlight.HumanLabels]"], None, r"(?i)not correspond to a subclass of AuxiliaryTask"),
        (["--data.num_labelled=5"], None, r"`num_labelled` must lie between 100"),
        (
            ["--data.labelled_share=1", "--data.num_labelled=200"],
            None,
            r"`labelled_share` must lie above 0 and below 1",
        ),
        (
            ["--model.scheduler=torch.optim.lr_scheduler.OneCycleLR", "--model.scheduler.max_lr=1"],
            None,
            "`scheduler` does",
        ),
        (["--model.scheduler.step_size=0"], None, r"`scheduler` cannot take its step"),
    ],
)
def test_a_mistake_gets_one_line_and_an_exit_code(words, prepare, expected, mirrors, capsys):
    if prepare is not None:
        prepare(mirrors)
    with pytest.raises(SystemExit) as exit_info:
        main([*arguments("human"), "--data.root", str(mirrors), *words])
    assert exit_info.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("auxlight: error:")]
    assert len(lines) == 1
    assert re.search(expected, lines[0]), lines[0]
    assert len(lines[0]) < 400


def test_human_labels_on_data_without_them_are_refused(mirrors, capsys):
    with pytest.raises(SystemExit):
        main([*arguments("human", "data/cifar10"), "--data.root", str(mirrors)])
    assert "needs a data set with human sub-labels" in capsys.readouterr().err


def no_checkpoint(path):
    path.write_bytes(b"not a checkpoint")


def empty(path):
    path.write_bytes(b"")


def cut_short(path):
    main([*arguments("single", "data/digits"), "--data.num_train=200"])
    content = Path("logs/single/version_0/checkpoints/last.ckpt").read_bytes()
    path.write_bytes(content[: len(content) // 2])


def weights_alone(path):
    torch.save({"weight": torch.zeros(2)}, path)


@pytest.mark.parametrize("write", [no_checkpoint, empty, cut_short, weights_alone])
@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_a_file_that_is_no_checkpoint_is_refused(write, subcommand, capsys):
    write(Path("broken.ckpt"))
    with pytest.raises(SystemExit):
        main([*arguments("single", "data/digits", subcommand=subcommand), "--ckpt_path=broken.ckpt"])
    assert "auxlight: error: `ckpt_path` must be a checkpoint" in capsys.readouterr().err


@pytest.fixture
def single_checkpoint():
    main([*arguments("single", "data/digits"), "--data.num_train=200"])
    return "--ckpt_path=logs/single/version_0/checkpoints/last.ckpt"


@pytest.mark.parametrize(
    ("method", "words", "expected"),
    [
        ("human", [], "labeler"),
        ("single", ["--model.aux_weight=9"], r"model.aux_weight=1.0 instead of 9.0"),
        ("single", ["--model.optimizer.lr=0.7"], r"model.optimizer.lr=0.01 instead of 0.7"),
        ("maxl", [], r"instead of .* more"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(method, words, expected, single_checkpoint, capsys):
    with pytest.raises(SystemExit):
        main([*arguments(method, "data/digits"), "--data.num_train=200", single_checkpoint, *words])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("auxlight: error:")]
    assert re.search(expected, line), line


def test_a_checkpoint_that_does_not_fit_the_data_is_refused(single_checkpoint, mirrors, capsys):
    with pytest.raises(SystemExit):
        main([*arguments("single", subcommand="test"), "--data.root", str(mirrors), single_checkpoint])
    assert "must be of the data's classes, 20 (aquatic_mammals" in capsys.readouterr().err


def test_a_run_resumes_under_another_logger(single_checkpoint):
    logger = ["--trainer.logger=lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir=elsewhere"]
    main([*arguments("single", "data/digits"), "--data.num_train=200", single_checkpoint, *logger])
    main([*arguments("single", "data/digits"), "--data.num_train=200", single_checkpoint, "--trainer.logger=false"])


@pytest.mark.parametrize(
    ("method", "precision"),
    [
        ("single", "64-true"),
        ("single", "bf16-true"),
        ("single", "bf16-mixed"),
        ("wa_maxl", "64-true"),
        ("wa_maxl", "bf16-mixed"),
    ],
)
def test_other_precisions(method, precision):
    words = ["--data.num_train=200", f"--trainer.precision={precision}"]
    main([*arguments(method, "data/digits", "small"), *words])


@pytest.mark.parametrize(("words", "found"), [([], "none"), (["train", "--config=x.yaml"], "'train'")])
def test_the_first_word_is_one_of_all_commands(words, found, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    listed = "fit, validate, test, predict, label, compare, budget"
    assert capsys.readouterr().err.endswith(f"followed by a command: {listed}. Found {found}.\n")


def test_a_run_that_is_over_leaves_its_process_group(tmp_path):
    """Else Gloo's threads abort Python's end, now and then."""
    dist.init_process_group("gloo", init_method=(tmp_path / "meeting").as_uri(), rank=0, world_size=1)
    try:
        main([*arguments("single", "data/digits"), "--data.num_train=200"])
        assert not dist.is_initialized()
    finally:
        leave_devices()


def test_checkpoints_can_be_left_out(capsys):
    main([*arguments("single", "data/digits"), "--data.num_train=200", "--trainer.enable_checkpointing=false"])
    assert "Checkpoints" not in capsys.readouterr().out


def test_what_validated_best_is_tested_beside_a_users_own_checkpoints(capsys):
    keep = ["--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint", "--trainer.callbacks.save_top_k=-1"]
    main([*arguments("single", "data/digits"), "--data.num_train=200", "--trainer.max_epochs=2", *keep])
    out = capsys.readouterr().out
    checkpoints = Path("logs/single/version_0/checkpoints")
    assert f"{checkpoints / 'best.ckpt'} (best val/accuracy)" in out
    assert len(list(checkpoints.glob("epoch=*.ckpt"))) == 2


@pytest.mark.parametrize(("first_rate", "factor"), [(1e30, 1), (0.01, 1e30)])
def test_a_training_that_diverges_is_tested_as_it_was_before(first_rate, factor, capsys):
    """In its second epoch; in its first one there is nothing to test."""
    words = [*arguments("human", "data/digits", "combiners/auxinash"), "--data.num_train=200", "--trainer.max_epochs=3"]
    words += [f"--model.optimizer.lr={first_rate}", "--model.scheduler=StepLR"]
    words += ["--model.scheduler.step_size=1", f"--model.scheduler.gamma={factor}"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    printed = capsys.readouterr()
    assert stop.value.code == 2 and "auxlight: error: The tasks' losses and gradients must be finite" in printed.err
    assert ("(best val/accuracy)" in printed.out) == ("test/accuracy" in printed.out) == (first_rate < 1)


def test_a_defect_of_ours_is_not_mistaken_for_the_users(monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("some defect")

    monkeypatch.setattr("auxlight.datamodules.digits.DigitsDataModule.load_split", broken)
    with pytest.raises(ValueError, match="some defect"):
        main(arguments("single", "data/digits"))


def test_a_report_without_a_known_shape_is_kept_whole():
    assert parser_cause("Errors:\n  Subtypes: x") == "Errors: Subtypes: x"


def test_an_option_at_the_top_is_found_in_the_whole_help():
    assert (
        parser_cause("Option 'seedz' is not accepted")
        == "Option 'seedz' is not accepted: `auxlight fit --help` lists those that are"
    )


def test_a_config_that_comes_before_its_method_is_told_so(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments("small", "single", "data/digits"))
    assert "a method's config must come before those" in capsys.readouterr().err


def test_an_inspection_among_the_callbacks_takes_the_place_of_the_default_one():
    words = [*arguments("human", "data/digits"), LOOK, "--data.num_train=200"]
    words.append("--trainer.callbacks+=auxlight.Inspection")
    main([*words, "--trainer.callbacks.num_images=7"])
    assert len(event_tags().Images("confusion/primary")) == 1
    assert len((next(Path("logs").rglob("metadata.tsv"))).read_text().splitlines()) == 8


def test_inspection_is_configured_and_switched_off_by_arguments_of_its_own():
    words = [*arguments("human", "data/digits"), "--data.num_train=200", LOOK]
    main([*words, "--inspection.views=[auxlight.inspection.LabelUsage]"])
    assert event_tags().Tags()["images"] == ["label_usage"]
    main([*words, "--inspection.every_n_epochs=0", "--trainer.logger.name=other"])
    assert event_tags("logs/other").Tags()["images"] == []


@pytest.mark.parametrize(
    ("words", "texts"),
    [
        (["--data.help", "auxlight.DigitsDataModule"], {"batch_size": "images per batch", "seed": "of the validation"}),
        (["--data.help", "auxlight.ImageFolderDataModule"], {"image_size": "scale all", "num_train": "a balanced"}),
        (
            ["--model.help", "auxlight.MultiHeadVGG"],
            {"aux_weight": "λ", "depth": "11, 13", "combiner": "how the losses"},
        ),
        (
            ["--model.help", "auxlight.MAXLModule"],
            {"aux_weight": "λ", "clip_grad_norm": "of the main", "fused": "one pass"},
        ),
    ],
)
def test_help_says_what_each_argument_means(words, texts, capsys):
    with pytest.raises(SystemExit):
        main(["fit", *words])
    shown = " ".join(capsys.readouterr().out.split("Help for")[1].split())
    for name, text in texts.items():
        assert re.search(rf"\.{name} \S+ {re.escape(text)}", shown), name
