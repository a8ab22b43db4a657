from types import SimpleNamespace
from unittest.mock import create_autospec

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets

from auxlight import (
    AuxiliaryClassifier,
    DigitsDataModule,
    HumanLabels,
    LeNet,
    MultiDigitsDataModule,
    MultiMNISTDataModule,
    PlaceTask,
)
from auxlight.datamodules.images import ImageSet
from auxlight.datamodules.multi_digit import overlaid_pairs
from tests.quiet import TRAINER


def overlay(one, other):
    """Two grey images (H, W), the other one two sevenths of a side further down and right; shrunk by Pillow."""
    height, width = one.shape
    down, right = round(2 * height / 7), round(2 * width / 7)
    canvas = np.zeros((2, height + down, width + right), np.float32)
    canvas[0, :height, :width] = one
    canvas[1, down:, right:] = other
    return np.asarray(Image.fromarray(canvas.max(0)).resize((width, height), Image.Resampling.BILINEAR))


def partners(pairs, grey):
    """Which image was laid over each: the only one that gives the pair, up to rounding."""
    found = []
    for position, image in enumerate(pairs.image.numpy()):
        errors = [np.abs(overlay(grey[position], other) - image[0]).max() for other in grey]
        assert sorted(errors)[0] < 0.502 < sorted(errors)[1]
        found.append(int(np.argmin(errors)))
    return found


@pytest.mark.parametrize("size", [(28, 28), (32, 32), (14, 21)])
def test_each_image_has_another_one_laid_over_it(size):
    grey = np.random.default_rng(0).integers(0, 256, (23, *size), dtype=np.uint8)
    image = torch.from_numpy(grey)[:, None].repeat(1, 3, 1, 1)
    image[:, 1:] //= torch.tensor([2, 3])[:, None, None]
    digit = torch.arange(23) * 3 % 10
    pairs = overlaid_pairs(image, digit)
    assert pairs.image.shape == image.shape and pairs.image.dtype == torch.uint8
    other = partners(pairs, grey)
    assert sorted(other) == list(range(23))  # each once
    assert sum(a == b for a, b in zip(other, range(23), strict=True)) < 5
    assert pairs.primary.tolist() == digit.tolist()
    assert pairs.auxiliary.tolist() == [10 * int(digit[i]) + int(digit[j]) for i, j in enumerate(other)]
    for channel in (1, 2):
        for i, j in enumerate(other):
            expected = overlay(*(image[k, channel].numpy() for k in (i, j)))
            np.testing.assert_allclose(pairs.image[i, channel], expected, atol=0.502)


def test_the_first_digit_lies_upper_left_and_the_second_lower_right():
    image = torch.zeros(5, 1, 28, 28, dtype=torch.uint8)
    image[3, 0, 14, 14] = 255
    pairs = overlaid_pairs(image, torch.arange(5))
    (second,) = (pairs.auxiliary % 10 == 3).nonzero()[:, 0].tolist()
    for position, expected in ((3, (14 + 0.5) * 28 / 36 - 0.5), (second, (14 + 8 + 0.5) * 28 / 36 - 0.5)):
        seen = pairs.image[position, 0].numpy()
        centre = np.average(np.argwhere(seen), axis=0, weights=seen[seen > 0])
        np.testing.assert_allclose(centre, expected, atol=0.3)
    assert [int(x.sum() > 0) for x in pairs.image] == [position in (3, second) for position in range(5)]


def test_pairs_depend_on_nothing_but_the_images():
    image, digit = torch.randint(0, 256, (50, 1, 7, 7), dtype=torch.uint8), torch.arange(50) % 10
    first = overlaid_pairs(image, digit)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    again = overlaid_pairs(image, digit)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.image, again.image) and torch.equal(first.auxiliary, again.auxiliary)


# --- scikit-learn's digits


@pytest.mark.parametrize("split", ["train", "meta", "val", "test"])
def test_multi_digits_are_pairs_of_digits_of_one_split(split):
    """A held-out digit in a training image would be no longer held out."""
    data = MultiDigitsDataModule(num_train=600, meta_split=0.3)
    data.setup()
    own = data.loader(split).dataset.subset
    raw = next(iter(data.loader(split, batch_size=len(own))))
    part, train = slice(0, 1437) if split != "test" else slice(1437, 1797), split != "test"
    digit = load_digits().target[part][own]
    grey = DigitsDataModule().load_split(train).image[own, 0].numpy()
    assert data.hierarchy.psi == (10,) * 10
    assert raw.primary.tolist() == digit.tolist() and raw.index.tolist() == own.tolist()
    second = data.hierarchy.to_relative(raw.auxiliary).numpy()
    assert sorted(second.tolist()) == sorted(digit.tolist())  # each image of the split is a second one once
    for position in (0, 1, 50, 100):
        assert np.ptp(raw.image[position].numpy(), 0).max() == 0  # grey
        (same,) = np.nonzero(digit == second[position])
        errors = [np.abs(overlay(grey[position], grey[j]) - raw.image[position, 0].numpy()).max() for j in same]
        assert min(errors) < 0.502


def test_both_digits_are_learned_from_multi_digits():
    data = MultiDigitsDataModule(batch_size=50, num_train=200, num_labelled=150)
    tasks = [PlaceTask()]
    module = AuxiliaryClassifier(data.hierarchy, LeNet(), labeler=HumanLabels(), tasks=tasks)
    trainer = L.Trainer(max_epochs=1, **TRAINER)
    trainer.fit(module, data)
    assert data.image_shape == (3, 32, 32)
    assert trainer.global_step == 2  # of 25 unlabelled images each
    assert all(np.isfinite(value.item()) for value in trainer.callback_metrics.values())
    assert trainer.callback_metrics["train/place_loss"] > 0
    assert tasks[0].head[-1].out_features == 10 and module.labelled_task.head[-1].out_features == 100


def test_multi_digits_read_and_make_no_folder(tmp_path):
    data = MultiDigitsDataModule(tmp_path / "nowhere", download=True, num_train=100)
    data.prepare_data()
    data.setup()
    assert not (tmp_path / "nowhere").exists()
    assert (data.hparams["root"], data.hparams["num_train"]) == (str(tmp_path / "nowhere"), 100)


@pytest.mark.parametrize("module", [MultiDigitsDataModule, MultiMNISTDataModule])
def test_nothing_is_augmented_by_default(module):
    assert (module().pipeline.flip, module().pipeline.crop_padding) == (False, 0)
    changed = module(flip=True, crop_padding=2).pipeline
    assert (changed.flip, changed.crop_padding) == (True, 2)


# --- MNIST


@pytest.fixture
def mnist():
    rng = np.random.default_rng(1)
    made = {}
    for split, size in (("train", 40), ("test", 12)):
        made[f"{split}_images"] = rng.integers(0, 256, (size, 28, 28), dtype=np.uint8)
        made[f"{split}_labels"] = rng.permutation(np.arange(size) % 10)
    return made


@pytest.mark.parametrize("split", ["train", "test"])
def test_multi_mnist_reads_its_mirror(split, mnist, tmp_path):
    np.savez(tmp_path / "mnist.npz", **mnist)
    data = MultiMNISTDataModule(tmp_path, batch_size=10)
    data.setup()
    dataset = data.loader(split).dataset
    own = dataset.subset
    pairs = ImageSet(*(part[own] for part in (dataset.images.image, dataset.images.primary, dataset.images.auxiliary)))
    other, digit = partners(pairs, mnist[f"{split}_images"][own]), mnist[f"{split}_labels"][own]
    assert pairs.image.shape[1:] == (3, 28, 28) and data.hierarchy.psi == (10,) * 10
    assert pairs.primary.tolist() == digit.tolist()
    assert pairs.auxiliary.tolist() == (10 * digit + digit[other]).tolist()


@pytest.mark.parametrize("train", [True, False])
def test_torchvisions_mnist_gives_what_the_mirror_gives(train, mnist, tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", **mnist)
    mirrored = MultiMNISTDataModule(tmp_path).load_split(train)
    images, labels = (torch.from_numpy(v) for k, v in mnist.items() if k.startswith("train" if train else "test"))
    double = create_autospec(datasets.MNIST, return_value=SimpleNamespace(data=images, targets=labels))
    monkeypatch.setattr(datasets, "MNIST", double)
    read = MultiMNISTDataModule(tmp_path / "no mirror here").load_split(train)
    for name in ("image", "primary"):
        assert torch.equal(getattr(read, name), getattr(mirrored, name))
    double.assert_called_once_with(tmp_path / "no mirror here", train, download=False)


def test_multi_mnist_trains_validates_and_tests(mnist, tmp_path):
    np.savez(tmp_path / "mnist.npz", **mnist)
    data = MultiMNISTDataModule(tmp_path, batch_size=6, val_split=0.25)
    module = AuxiliaryClassifier(data.hierarchy, LeNet(), tasks=[PlaceTask()])
    trainer = L.Trainer(max_epochs=1, **TRAINER)
    trainer.fit(module, data)
    assert trainer.global_step == 5 and data.image_shape == (3, 28, 28)
    assert np.isfinite(trainer.test(module, data, verbose=False)[0]["test/primary_loss"])


def test_missing_mnist_says_what_to_do(tmp_path, refused):
    with refused("mnist is not in `root`", str(tmp_path / "mnist.npz"), "train_labels", "`download: true`"):
        MultiMNISTDataModule(tmp_path).setup()


def test_a_label_that_is_no_digit_is_refused(mnist, tmp_path, refused):
    mnist["train_labels"][3] = 10
    np.savez(tmp_path / "mnist.npz", **mnist)
    with refused("training primary labels", "0 … 9", "10"):
        MultiMNISTDataModule(tmp_path, batch_size=6, val_split=0.25).setup()
