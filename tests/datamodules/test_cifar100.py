import numpy as np
import pytest
import torch

from auxlight import CIFAR100SuperclassDataModule
from auxlight.datamodules.cifar100_levels import FINE_CLASSES, level_labels

# Coarse label of each fine label, as the official files pair them.
COARSE = [
    *(4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7),
    *(6, 13, 15, 3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10),
    *(16, 4, 17, 4, 2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16),
    *(12, 9, 13, 15, 13, 16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13),
]
# MAXL's levels (github.com/lorenmt/maxl, create_dataset.py): the members of each class, one level below.
TEN = [{8, 11, 15}, {0, 12}, {1, 16}, {7, 13}, {14}, {2, 4, 17}, {3, 5, 6}, {9}, {10}, {18, 19}]
THREE = [{0, 1, 2, 3, 4}, {5}, {6, 7, 8, 9}]
VALID = [(3, 10), (3, 20), (3, 100), (10, 20), (10, 100), (20, 100)]


def label(fine, level):
    """Class of a fine class at a level."""
    coarse = COARSE[fine]
    ten = next(i for i, members in enumerate(TEN) if coarse in members)
    three = next(i for i, members in enumerate(THREE) if ten in members)
    return {100: fine, 20: coarse, 10: ten, 3: three}[level]


@pytest.mark.parametrize("level", [3, 10, 20, 100])
def test_levels_follow_the_official_table_and_maxl(level):
    assert level_labels(level).tolist() == [label(fine, level) for fine in range(100)]


def test_fine_classes_are_a_hundred_names():
    assert len(set(FINE_CLASSES)) == 100
    assert [FINE_CLASSES[i] for i in (0, 1, 50, 99)] == ["apple", "aquarium_fish", "mouse", "worm"]


def test_blocks_follow_the_superclasses():
    data = CIFAR100SuperclassDataModule()
    assert data.hierarchy.psi == (5,) * 20
    auxiliary = data.fine_to_auxiliary.tolist()
    assert sorted(auxiliary) == list(range(100))
    for fine in range(100):
        siblings = [other for other in range(100) if COARSE[other] == COARSE[fine]]
        assert auxiliary[fine] == 5 * COARSE[fine] + siblings.index(fine)


@pytest.mark.parametrize(("primary", "auxiliary"), VALID)
def test_blocks_are_consistent_on_data(primary, auxiliary, write, arrays):
    root = write("cifar100")
    data = CIFAR100SuperclassDataModule(root, primary_level=primary, auxiliary_level=auxiliary, batch_size=10)
    assert data.hierarchy.num_primary == primary and data.hierarchy.num_auxiliary == auxiliary
    for train, split in ((True, "train"), (False, "test")):
        images = data.load_split(train).check(data.hierarchy, split)
        fine = arrays("cifar100")[f"{split}_fine"].tolist()
        assert images.primary.tolist() == [label(f, primary) for f in fine]
        # The auxiliary classes are the level's own, renamed one to one, and each lies in its primary class's block.
        pairs = {(label(f, auxiliary), int(a)) for f, a in zip(fine, images.auxiliary, strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs}) == auxiliary
        ends = np.cumsum(data.hierarchy.psi)
        for y, a in zip(images.primary.tolist(), images.auxiliary.tolist(), strict=True):
            assert ends[y] - data.hierarchy.psi[y] <= a < ends[y]


@pytest.mark.parametrize(
    ("primary", "auxiliary", "psi"), [(3, 10, (5, 1, 4)), (10, 20, (3, 2, 2, 2, 1, 3, 3, 1, 1, 2))]
)
def test_blocks_have_the_sizes_of_maxl(primary, auxiliary, psi):
    assert CIFAR100SuperclassDataModule(primary_level=primary, auxiliary_level=auxiliary).hierarchy.psi == psi


@pytest.mark.parametrize(
    ("level", "psi", "expected"), [(20, None, (5,) * 20), (3, [1, 2, 3], (1, 2, 3)), (100, 2, (2,) * 100)]
)
def test_without_human_labels_psi_is_free(level, psi, expected, write):
    data = CIFAR100SuperclassDataModule(
        write("cifar100"), primary_level=level, auxiliary_level=None, psi=psi, batch_size=10
    )
    assert data.hierarchy.psi == expected
    assert data.load_split(True).auxiliary is None


@pytest.mark.parametrize("psi", [5, [5] * 20])
def test_psi_may_say_what_the_human_labels_say(psi):
    assert CIFAR100SuperclassDataModule(psi=psi).hierarchy.psi == (5,) * 20


@pytest.mark.parametrize("psi", [4, [5] * 19, [5] * 19 + [6], 0, -1, True, [], 2.5])
def test_psi_that_contradicts_the_human_labels_is_refused(psi, refused):
    with refused("`psi`", "Found"):
        CIFAR100SuperclassDataModule(psi=psi)


@pytest.mark.parametrize("primary", [0, 2, 5, 99])
def test_an_unknown_primary_level_is_refused(primary, refused):
    with refused("`primary_level`", "3, 10, 20 or 100", f"primary_level={primary}"):
        CIFAR100SuperclassDataModule(primary_level=primary)


INVALID = [(p, a) for p in (3, 10, 20, 100) for a in (0, 3, 5, 10, 20, 50, 100, 1000) if (p, a) not in VALID]


@pytest.mark.parametrize(("primary", "auxiliary"), INVALID)
def test_an_auxiliary_level_that_is_not_a_finer_one_is_refused(primary, auxiliary, refused):
    with refused("`auxiliary_level`", "null", f"auxiliary_level={auxiliary}", f"primary_level={primary}"):
        CIFAR100SuperclassDataModule(primary_level=primary, auxiliary_level=auxiliary)


@pytest.mark.parametrize("stray", [-1, 100])
@pytest.mark.parametrize("split", ["train", "test"])
def test_a_fine_label_out_of_range_is_refused(stray, split, write, arrays, refused):
    labels = arrays("cifar100")[f"{split}_fine"]
    labels[7] = stray
    root = write("cifar100", **{f"{split}_fine": labels})
    with refused("fine labels", "0 … 99", str(stray)):
        CIFAR100SuperclassDataModule(root, batch_size=10).setup()


def test_the_split_is_stratified_by_fine_class(write):
    data = CIFAR100SuperclassDataModule(write("cifar100"), batch_size=10, val_split=1 / 3)
    data.setup()
    seen = torch.cat([batch.auxiliary for batch in data.val_dataloader()])
    assert sorted(seen.tolist()) == list(range(100))  # one of the three images of each


def test_of_few_images_the_exposed_classes_are_balanced(write):
    """Fewer than there are fine classes."""
    options = {"auxiliary_level": None, "num_train": 60, "num_labelled": 40, "batch_size": 10, "val_split": 1 / 3}
    data = CIFAR100SuperclassDataModule(write("cifar100"), **options)
    assert data.split_size("train") == 60
    labels = torch.cat([batch.primary for batch in data.loader("train", train=True)])
    assert labels[labels >= 0].bincount(minlength=20).max() <= 4


@pytest.mark.parametrize("primary", [3, 20])
def test_what_is_exposed_as_auxiliary_labels_is_no_matter_of_the_splits(primary, write):
    """Methods with human labels of one level, of another, and without any have the same images."""
    kept = []
    for auxiliary, psi in ((100, None), (None, 3), (None, 9), *([(20, None)] if primary == 3 else [])):
        options = {"primary_level": primary, "auxiliary_level": auxiliary, "psi": psi, "meta_split": 0.5}
        data = CIFAR100SuperclassDataModule(write("cifar100"), batch_size=10, val_split=1 / 3, num_train=200, **options)
        data.setup()
        kept.append([data.sample(split, 300, 0).index.tolist() for split in ("train", "meta", "val")])
    assert all(splits == kept[0] for splits in kept) and all(kept[0])
