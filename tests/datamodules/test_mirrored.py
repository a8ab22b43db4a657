import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from unittest.mock import create_autospec

import numpy as np
import pytest
import torch
from torchvision import datasets

from auxlight import CIFAR10DataModule, CIFAR100SuperclassDataModule, SVHNDataModule

CASES = {
    "cifar10": (CIFAR10DataModule, "train_labels"),
    "cifar100": (CIFAR100SuperclassDataModule, "train_fine"),
    "svhn": (SVHNDataModule, "train_labels"),
}
every_data_set = pytest.mark.parametrize("name", CASES)


def torchvision_like(name, arrays, train):
    """The attributes of torchvision's data set: CIFAR holds a list of targets, SVHN images with channels first."""
    images, labels = (arrays[key] for key in arrays if key.startswith("train" if train else "test"))
    if name == "svhn":
        return SimpleNamespace(data=images.transpose(0, 3, 1, 2).copy(), labels=labels)
    return SimpleNamespace(data=images, targets=labels.tolist())


@every_data_set
def test_the_mirror_is_read_as_it_is(name, write, arrays):
    module, key = CASES[name]
    images = module(write(name)).load_split(True)
    np.testing.assert_array_equal(images.image.permute(0, 2, 3, 1), arrays(name)["train_images"])
    if name != "cifar100":
        assert images.primary.tolist() == arrays(name)[key].tolist()
        assert images.auxiliary is None


@every_data_set
@pytest.mark.parametrize("train", [True, False])
def test_torchvisions_files_give_what_the_mirror_gives(name, train, write, arrays, monkeypatch, tmp_path):
    module, _ = CASES[name]
    mirrored = module(write(name)).load_split(train)
    calls = []

    def fake(self, train, download):
        calls.append((train, download))
        return torchvision_like(name, arrays(name), train)

    monkeypatch.setattr(module, "torchvision_dataset", fake)
    read = module(tmp_path / "no mirror here").load_split(train)
    assert calls == [(train, False)]
    for ours, theirs in zip((read.image, read.primary), (mirrored.image, mirrored.primary), strict=True):
        assert torch.equal(ours, theirs)
    assert (read.auxiliary is None) == (mirrored.auxiliary is None) == (name != "cifar100")
    assert read.auxiliary is None or torch.equal(read.auxiliary, mirrored.auxiliary)


@every_data_set
@pytest.mark.parametrize("train", [True, False])
def test_torchvision_is_called_as_it_is_declared(name, train, monkeypatch, tmp_path):
    declared = getattr(datasets, name.upper())
    double = create_autospec(declared)
    monkeypatch.setattr(datasets, name.upper(), double)
    assert CASES[name][0](tmp_path).torchvision_dataset(train, download=False) is double.return_value
    (root, split), options = double.call_args
    assert (str(root), split) == (str(tmp_path), {True: "train", False: "test"}[train] if name == "svhn" else train)
    assert options == {"download": False}


@every_data_set
def test_the_mirror_goes_first(name, write, monkeypatch):
    module, _ = CASES[name]

    def refuse(*args, **kwargs):
        raise AssertionError

    monkeypatch.setattr(module, "torchvision_dataset", refuse)
    data = module(write(name), download=True, batch_size=10)
    data.prepare_data()
    data.setup()
    assert data.image_shape == (3, 32, 32)


@pytest.mark.parametrize(("module", "flip"), [(CIFAR10DataModule, True), (SVHNDataModule, False)])
def test_digits_of_houses_are_never_mirrored(module, flip, tmp_path):
    assert module(tmp_path).pipeline.flip is flip


# --- download


@every_data_set
def test_a_download_fetches_both_splits_and_keeps_stdout_clean(name, monkeypatch, tmp_path, capsys):
    module, _ = CASES[name]
    calls = []

    def fake(self, train, download):
        calls.append((train, download))
        print("100%")

    monkeypatch.setattr(module, "torchvision_dataset", fake)
    module(tmp_path).prepare_data()
    assert calls == []
    module(tmp_path, download=True).prepare_data()
    assert sorted(calls) == [(False, True), (True, True)]
    written = capsys.readouterr()
    assert written.out == "" and "100%" in written.err


def test_runs_side_by_side_download_one_after_the_other(monkeypatch, tmp_path):
    inside, overlaps = [], []

    def fake(self, train, download):
        inside.append(train)
        time.sleep(0.05)
        overlaps.append(len(inside) > 1)
        inside.pop()

    monkeypatch.setattr(CIFAR10DataModule, "torchvision_dataset", fake)
    with ThreadPoolExecutor(4) as threads:
        modules = [CIFAR10DataModule(tmp_path / "new" / "root", download=True) for _ in range(4)]
        list(threads.map(lambda module: module.prepare_data(), modules))
    assert overlaps == [False] * 8


@every_data_set
@pytest.mark.parametrize("error", [OSError("name not\nresolved"), RuntimeError("not found"), EOFError()])
def test_a_failing_download_says_what_to_do(name, error, monkeypatch, tmp_path, refused):
    module, _ = CASES[name]

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(module, "torchvision_dataset", fail)
    with refused(name, "download", " ".join(str(error).split()), str(tmp_path / f"{name}.npz")):
        module(tmp_path, download=True).prepare_data()


# --- bad input


@every_data_set
def test_missing_data_says_what_to_do(name, tmp_path, refused):
    module, key = CASES[name]
    with refused("`root`", str(tmp_path / f"{name}.npz"), "train_images", key, "`download: true`"):
        module(tmp_path).setup()


@every_data_set
@pytest.mark.parametrize("content", [b"", b"garbage" * 99, None])
def test_a_damaged_mirror_is_named(name, content, write, refused):
    path = write(name) / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with refused(str(path), ".npz"):
        CASES[name][0](path.parent).setup()


@every_data_set
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("part", ["images", "labels"])
def test_a_missing_array_is_named(name, split, part, write, refused):
    key = CASES[name][1].replace("train", split) if part == "labels" else f"{split}_images"
    with refused(f"{name}.npz", f"`{key}`"):
        CASES[name][0](write(name, **{key: None})).setup()


@every_data_set
def test_a_damaged_array_is_named(name, write, damage, refused):
    path = write(name) / f"{name}.npz"
    damage(path, "test_images.npy")
    with refused(str(path), "`test_images`"):
        CASES[name][0](path.parent).setup()


@every_data_set
def test_objects_are_refused(name, write, refused):
    key = CASES[name][1]
    with refused(f"{name}.npz", f"`{key}`"):
        CASES[name][0](write(name, **{key: np.array([{}] * 40)})).setup()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("stray", [-1, 10, 2**40])
def test_a_label_out_of_range_is_refused(split, stray, write, arrays, refused):
    labels = arrays("cifar10")[f"{split}_labels"]
    labels[3] = stray
    with refused(split, "labels", "0 … 9", str(stray)):
        CIFAR10DataModule(write("cifar10", **{f"{split}_labels": labels}), batch_size=10).setup()


@every_data_set
@pytest.mark.parametrize("change", [-1, 1])
def test_one_label_per_image(name, change, write, arrays, refused):
    module, key = CASES[name]
    labels = arrays(name)[key]
    labels = labels[:change] if change < 0 else np.append(labels, 0)
    with refused("one label per image", f"{len(labels)} training", f"{len(labels) - change} images"):
        module(write(name, **{key: labels}), batch_size=10).setup()


@pytest.mark.parametrize("spoil", [lambda x: x / 255, lambda x: x.transpose(0, 3, 1, 2), lambda x: x.astype(int)])
def test_images_of_another_kind_are_refused(spoil, write, arrays, refused):
    images = spoil(arrays("svhn")["test_images"])
    with refused("`test_images`", "uint8", str(images.dtype), str(images.shape)):
        SVHNDataModule(write("svhn", test_images=images), batch_size=10).setup()


@pytest.mark.parametrize("module", [CIFAR10DataModule, SVHNDataModule])
@pytest.mark.parametrize("psi", [0, -2, True, [], [5] * 9, [5] * 11, [5] * 9 + [0], 2.5])
def test_psi_that_does_not_fit_is_refused(module, psi, refused):
    with refused("`psi`", "Found"):
        module(psi=psi)


def test_psi_may_differ_between_classes():
    assert CIFAR10DataModule(psi=range(1, 11)).hierarchy.psi == tuple(range(1, 11))
    assert SVHNDataModule(psi=3).hierarchy.psi == (3,) * 10
