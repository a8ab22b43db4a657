from types import SimpleNamespace

import lightning as L
import numpy as np
import pytest
import torch

from auxlight import Batch, DigitsDataModule, NpzDataModule
from auxlight.datamodules.images import ImageSet
from auxlight.datamodules.semi_supervised import PartlyLabelledDataset, PartlyLabelledSampler


@pytest.fixture(scope="module")
def truth():
    return DigitsDataModule().load_split(True)


def digits(**options):
    """By default 100 labelled and 300 unlabelled images."""
    data = DigitsDataModule(**{"num_train": 400, "num_labelled": 100, "batch_size": 20} | options)
    data.setup()
    return data


def split(data, name="train"):
    """Positions of the labelled and of the unlabelled images of a split."""
    batches, keys = list(data.loader(name)), ("index", "primary", "auxiliary")
    index, primary, auxiliary = (torch.cat([getattr(batch, key) for batch in batches]) for key in keys)
    assert torch.equal(primary < 0, auxiliary < 0)
    return index[primary >= 0].tolist(), index[primary < 0].tolist()


# --- batches


@pytest.mark.parametrize(
    ("batch_size", "share", "labelled"), [(20, 0.5, 10), (20, 0.25, 5), (20, 0.9, 18), (20, 0.33, 7), (2, 0.5, 1)]
)
def test_the_labelled_images_of_a_batch_come_first_and_the_others_hide_their_labels(batch_size, share, labelled, truth):
    data = digits(batch_size=batch_size, labelled_share=share)
    known, unknown = map(set, split(data))
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.train_dataloader()) == 300 // (batch_size - labelled)
    for batch in batches:
        first, rest = batch.index[:labelled], batch.index[labelled:]
        assert len(batch.index) == batch_size
        assert set(first.tolist()) <= known and set(rest.tolist()) <= unknown
        assert torch.equal(batch.image, truth.image[batch.index])
        assert torch.equal(batch.primary[:labelled], truth.primary[first])
        assert torch.equal(batch.auxiliary[:labelled], truth.auxiliary[first])
        assert batch.primary[labelled:].tolist() == batch.auxiliary[labelled:].tolist() == [-1] * len(rest)


def test_data_without_sub_labels_have_none(write, arrays):
    data = NpzDataModule(write("images"), num_labelled=8, batch_size=6, val_split=0.25)
    for batch in data.train_dataloader():
        assert batch.auxiliary is None
        assert batch.primary[:3].tolist() == arrays("images")["train_primary"][batch.index[:3]].tolist()
        assert batch.primary[3:].tolist() == [-1] * 3


def sampler(labelled=7, unlabelled=23, batch_size=8, share=0.5, *, epoch=0, **options):
    """Positions 0 … labelled − 1 keep their labels."""
    count = labelled + unlabelled
    images = ImageSet(torch.zeros(count, 3, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64))
    dataset = PartlyLabelledDataset(images, torch.arange(labelled), torch.arange(labelled, count))
    made = PartlyLabelledSampler(dataset, batch_size, share, **{"seed": 0} | options)
    made.set_epoch(epoch)
    return made


def parts(draws, first=4):
    """Labelled and unlabelled positions in the order in which they come."""
    return [i for d in draws for i in d.index[:first].tolist()], [i for d in draws for i in d.index[first:].tolist()]


def facts(draws):
    return [(draw.index.tolist(), draw.seed) for draw in draws]


def test_an_epoch_is_a_pass_over_the_unlabelled_images():
    dropped = []
    for epoch in range(30):
        _, unlabelled = parts(sampler(epoch=epoch))
        assert len(unlabelled) == len(set(unlabelled)) == 20
        dropped.append(set(range(7, 30)) - set(unlabelled))
        assert len(dropped[-1]) == 3
    assert set().union(*dropped) == set(range(7, 30))
    assert sorted(parts(sampler(unlabelled=24))[1]) == list(range(7, 31))


def test_the_labelled_images_come_round_evenly():
    labelled, _ = parts(sampler(unlabelled=400))
    assert len(labelled) == 400
    for seen in range(1, 401):
        counts = np.bincount(labelled[:seen], minlength=7)
        assert counts.max() - counts.min() <= 1
    rounds = {tuple(labelled[start : start + 7]) for start in range(0, 399, 7)}
    assert len(rounds) > 50  # of 57: each has an order of its own


def test_a_batch_may_take_all_labelled_images():
    for draw in sampler(labelled=4, unlabelled=20):
        assert sorted(draw.index[:4].tolist()) == [0, 1, 2, 3]


def test_an_epoch_may_need_only_some_of_the_labelled_images():
    labelled, unlabelled = parts(sampler(labelled=100, unlabelled=8))
    assert len(unlabelled) == 8 and len(set(labelled)) == 8


# --- order

BASE = {"seed": 3, "stream": "main", "epoch": 2}


def test_the_same_coordinates_give_the_same_draws():
    resumed = sampler(seed=3)
    list(resumed)  # epoch 0 was played before
    resumed.set_epoch(2)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert facts(resumed) == facts(sampler(**BASE)) == facts(sampler(**BASE))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert facts(resumed) == facts(sampler(**BASE))


@pytest.mark.parametrize("change", [{"seed": 4}, {"stream": "agent"}, {"epoch": 3}])
def test_any_other_coordinate_gives_another_order_and_other_augmentations(change):
    draws, others = list(sampler(**BASE)), list(sampler(**BASE | change))
    for one, other in zip(parts(draws), parts(others), strict=True):
        assert one != other
    assert not {draw.seed for draw in draws} & {draw.seed for draw in others}


def test_every_batch_has_an_augmentation_of_its_own():
    made = [sampler(labelled=8, epoch=epoch, num_replicas=2, rank=rank) for epoch in range(20) for rank in (0, 1)]
    seeds = [draw.seed for draws in made for draw in draws]
    assert len(set(seeds)) == len(seeds) == 80


def test_the_global_seed_chooses_the_order_alone():
    splits, orders = [], []
    for seed in (1, 2, 1):
        L.seed_everything(seed, verbose=False)
        data = digits()
        splits.append(split(data))
        orders.append([batch.index.tolist() for batch in data.train_dataloader()])
    assert splits[0] == splits[1] == splits[2]
    assert orders[0] == orders[2] != orders[1]


# --- devices


@pytest.mark.parametrize(("share", "labelled"), [(0.5, 2), (0.25, 1), (0.75, 3)])
def test_two_devices_share_the_batch_of_one(share, labelled):
    size = {"labelled": 9, "unlabelled": 50, "share": share, "epoch": 1}
    whole = list(sampler(batch_size=8, **size))
    ranks = [list(sampler(batch_size=4, num_replicas=2, rank=rank, **size)) for rank in (0, 1)]
    assert len(whole) == len(ranks[0]) == len(ranks[1]) == len(sampler(batch_size=4, num_replicas=2, rank=0, **size))
    for one, first, second in zip(whole, *ranks, strict=True):
        for part, mine in ((slice(2 * labelled), slice(labelled)), (slice(2 * labelled, None), slice(labelled, None))):
            shared = first.index[mine].tolist() + second.index[mine].tolist()
            assert sorted(shared) == sorted(one.index[part].tolist())
        assert len(first.index) == len(second.index) == 4


def on_a_device(data, rank=0, devices=1):
    data.trainer = SimpleNamespace(
        world_size=devices,
        global_rank=rank,
        strategy=SimpleNamespace(batch_to_device=lambda raw: data.on_after_batch_transfer(raw, 0)),
        precision_plugin=SimpleNamespace(convert_input=lambda batch: batch),
        overfit_batches=0,
    )
    return data


def test_the_trainers_devices_see_other_images():
    first, second = (list(on_a_device(digits(), rank, 2).train_dataloader()) for rank in (0, 1))
    assert len(first) == len(second) == 300 // 20
    seen = [i for batch in first + second for i in batch.index[10:].tolist()]
    assert len(set(seen)) == len(seen) == 300
    assert all(batch.primary[:10].min() >= 0 and batch.primary[10:].max() == -1 for batch in first + second)


def test_batches_beside_the_loop_are_partly_labelled_as_well():
    data = on_a_device(digits())
    main = [batch.index.tolist() for batch in data.train_dataloader()]
    for size, expected in ((None, 10), (8, 4)):
        batches = list(data.training_batches("some", 0, size))
        assert len(batches) == 300 // expected and all(isinstance(batch, Batch) for batch in batches)
        for batch in batches:
            assert batch.primary[:expected].min() >= 0
            assert batch.primary[expected:].tolist() == batch.auxiliary[expected:].tolist() == [-1] * expected
        assert [batch.index.tolist() for batch in batches] != main


# --- splits


def test_the_labelled_images_are_balanced_and_nested(truth):
    chosen, _ = split(digits(num_labelled=None))
    previous = set()
    for size in (10, 25, 100, 101, 399):
        labelled, hidden = split(digits(num_labelled=size))
        assert len(labelled) == size and len(hidden) == 400 - size
        assert sorted(labelled + hidden) == sorted(chosen)
        counts = np.bincount(truth.auxiliary[labelled], minlength=10)
        assert counts.max() - counts.min() <= 1 and previous < set(labelled)
        previous = set(labelled)


def test_the_modules_seed_chooses_the_labelled_images(write):
    folder = write("images")

    def labelled(seed):
        data = NpzDataModule(folder, num_labelled=10, batch_size=6, val_split=1 / 40, seed=seed)
        known = [int(i) for batch in data.loader("train") for i in batch.index[batch.primary >= 0]]
        return next(iter(data.val_dataloader())).index.tolist(), known

    made = [labelled(seed) for seed in range(12)]
    assert made == [labelled(seed) for seed in range(12)]
    beside_one_split = [known for held_out, known in made if [other for other, _ in made].count(held_out) > 1]
    assert len(beside_one_split) > 1 and len({*map(tuple, beside_one_split)}) == len(beside_one_split)


def test_all_training_images_are_candidates_by_default():
    labelled, hidden = split(digits(num_train=None))
    assert (len(labelled), len(hidden)) == (100, 1437 - 144 - 100)


@pytest.mark.parametrize("meta_split", [0.0, 0.2])
def test_validation_test_and_held_out_images_keep_their_labels(meta_split, truth):
    data, plain = digits(meta_split=meta_split), digits(num_labelled=None)
    for name in ("val", "test", *(["meta"] if meta_split else [])):
        for batch in data.loader(name):
            images = data.load_split(False) if name == "test" else truth
            assert torch.equal(batch.primary, images.primary[batch.index])
            assert torch.equal(batch.auxiliary, images.auxiliary[batch.index])
    for name in ("val", "test"):
        assert split(data, name) == split(plain, name)


@pytest.mark.parametrize("meta_split", [0.2, 0.5])
def test_held_out_images_come_out_of_the_labelled_ones(meta_split, truth):
    whole, hidden = split(digits())
    data = digits(meta_split=meta_split)
    meta, none = split(data, "meta")
    labelled, still_hidden = split(data)
    assert none == [] and still_hidden == hidden
    assert len(meta) == 100 * meta_split and sorted(meta + labelled) == sorted(whole)
    assert np.bincount(truth.auxiliary[meta]).tolist() == [10 * meta_split] * 10
    (batch, *_) = on_a_device(data).training_batches("some", 0, 10, "meta")
    assert set(batch.index.tolist()) <= set(meta) and batch.primary.min() >= 0


def test_where_all_are_labelled_nothing_is_hidden():
    data, plain = digits(num_labelled=400), digits(num_labelled=None)
    for one, other in zip(data.train_dataloader(), plain.train_dataloader(), strict=True):
        assert torch.equal(one.index, other.index) and one.seed == other.seed
        assert one.primary.min() >= 0 and torch.equal(one.primary, other.primary)


def test_hyperparameters_hold_what_was_asked_for():
    hparams = DigitsDataModule(num_labelled=100, labelled_share=0.25).hparams
    assert (hparams["num_labelled"], hparams["labelled_share"]) == (100, 0.25)


# --- bad input


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_share_outside_the_unit_interval_is_refused_at_once(share, refused):
    with refused("`labelled_share`", "above 0 and below 1", f"labelled_share={share}"):
        DigitsDataModule(labelled_share=share)


@pytest.mark.parametrize("size", [-1, 0, 9, 401])
def test_too_few_or_too_many_labels_are_refused(size, refused):
    with refused("`num_labelled`", "10", "400", f"num_labelled={size}"):
        digits(num_labelled=size)


@pytest.mark.parametrize(("batch_size", "share"), [(1, 0.4), (1, 0.6), (4, 0.1), (4, 0.9)])
def test_a_batch_without_images_of_a_kind_is_refused(batch_size, share, refused):
    with refused("`labelled_share`", f"labelled_share={share}", f"batch_size={batch_size}"):
        digits(batch_size=batch_size, labelled_share=share).train_dataloader()


@pytest.mark.parametrize(
    ("options", "devices", "words"),
    [
        ({"num_labelled": 19, "batch_size": 40}, 1, ("20 labelled", "Found 19")),
        ({"num_labelled": 381, "batch_size": 40}, 1, ("20 unlabelled", "Found 19")),
        ({"num_labelled": 39, "batch_size": 40}, 2, ("40 labelled", "Found 39")),
        ({"num_labelled": 361, "batch_size": 40}, 2, ("40 unlabelled", "Found 39")),
        ({"num_labelled": 20, "meta_split": 0.5, "batch_size": 22}, 1, ("11 labelled", "Found 10")),
    ],
)
def test_too_few_images_for_a_batch_are_refused(options, devices, words, refused):
    data = on_a_device(digits(**options), devices=devices)
    with refused(*words, "`num_labelled`", "`labelled_share`", "`batch_size`"):
        data.train_dataloader()


@pytest.mark.parametrize(("options", "devices"), [({"num_labelled": 20}, 1), ({"num_labelled": 360}, 2)])
def test_just_enough_images_for_a_batch_are_allowed(options, devices):
    data = on_a_device(digits(**options, batch_size=40), devices=devices)
    assert len(data.train_dataloader()) == (400 - options["num_labelled"]) // (20 * devices)


def test_a_batch_larger_than_the_training_set_is_refused(refused):
    with refused("`batch_size`", "390 training images", "batch_size=391"):
        digits(num_labelled=20, meta_split=0.5, batch_size=391)
