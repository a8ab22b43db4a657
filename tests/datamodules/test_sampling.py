from itertools import pairwise

import pytest
import torch
from torch.utils.data import DistributedSampler

from auxlight.datamodules.images import BatchDataset, ImageSet
from auxlight.datamodules.sampling import BatchSampler, balanced_subset, stratified_split

UNEVEN = torch.tensor([0] * 31 + [1] * 3 + [2] * 17 + [4] * 50)[
    torch.randperm(101, generator=torch.Generator().manual_seed(3))
]  # class 3 has no image


def counts(labels, classes=5):
    return [sum(int(label) == c for label in labels) for c in range(classes)]


# --- stratified split


@pytest.mark.parametrize("val_split", [0.02, 0.1, 0.25, 0.37, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("seed", [0, 1])
def test_split_is_complete_disjoint_and_keeps_each_share(val_split, seed):
    train, val = stratified_split(UNEVEN, "val_split", val_split, seed)
    assert sorted(train.tolist() + val.tolist()) == list(range(101))
    assert train.tolist() == sorted(train.tolist()) and val.tolist() == sorted(val.tolist())
    assert len(val) == round(101 * val_split)
    for taken, present in zip(counts(UNEVEN[val]), counts(UNEVEN), strict=True):
        assert abs(taken - val_split * present) < 1


def test_split_is_exact_where_the_shares_are_whole():
    strata = torch.arange(200) % 10
    _, val = stratified_split(strata, "val_split", 0.1, 0)
    assert counts(strata[val], 10) == [2] * 10


def test_split_depends_on_its_seed_alone():
    torch.manual_seed(0)
    first = stratified_split(UNEVEN, "val_split", 0.3, 5)[1].tolist()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert stratified_split(UNEVEN, "val_split", 0.3, 5)[1].tolist() == first
    assert torch.equal(torch.get_rng_state(), state)
    assert stratified_split(UNEVEN, "val_split", 0.3, 6)[1].tolist() != first


def test_every_image_is_as_likely_to_be_held_out():
    held_out = torch.zeros(40)
    for seed in range(400):
        held_out[stratified_split(torch.arange(40) % 4, "val_split", 0.3, seed)[1]] += 1
    # Binomial: 120 ± 9.2; five standard deviations.
    assert held_out.min() > 74 and held_out.max() < 166


@pytest.mark.parametrize("val_split", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_share_outside_the_unit_interval_is_refused(val_split, refused):
    with refused("`val_split`", "between 0 and 1", str(val_split)):
        stratified_split(UNEVEN, "val_split", val_split, 0)


@pytest.mark.parametrize("val_split", [1e-4, 0.9999])
def test_share_that_leaves_a_split_empty_is_refused(val_split, refused):
    with refused("`val_split`", "at least one image", str(val_split), "101"):
        stratified_split(UNEVEN, "val_split", val_split, 0)


# --- balanced subset


def water_fill(present, size):
    """One image at a time to the class with the fewest that has any left."""
    taken = [0] * len(present)
    for _ in range(size):
        taken[min((c for c in range(len(present)) if taken[c] < present[c]), key=lambda c: taken[c])] += 1
    return taken


@pytest.mark.parametrize("size", [4, 5, 11, 12, 13, 40, 54, 55, 80, 100, 101])
def test_subset_is_balanced_as_far_as_the_classes_reach(size):
    chosen = balanced_subset(UNEVEN, size, 0)
    assert chosen.tolist() == sorted(set(chosen.tolist())) and len(chosen) == size
    taken, present = counts(UNEVEN[chosen]), counts(UNEVEN)
    assert sorted(taken) == sorted(water_fill(present, size))
    level = max(taken)
    assert all(t >= min(p, level - 1) for t, p in zip(taken, present, strict=True))


def test_subsets_are_nested():
    sizes = range(4, 102)
    subsets = [set(balanced_subset(UNEVEN, size, 7).tolist()) for size in sizes]
    assert all(small < large for small, large in pairwise(subsets))


def test_subset_depends_on_its_seed_alone():
    torch.manual_seed(0)
    first = balanced_subset(UNEVEN, 20, 5).tolist()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert balanced_subset(UNEVEN, 20, 5).tolist() == first
    assert torch.equal(torch.get_rng_state(), state)
    assert balanced_subset(UNEVEN, 20, 6).tolist() != first


def test_subset_is_another_draw_than_the_split():
    strata = torch.zeros(100, dtype=torch.int64)
    _, val = stratified_split(strata, "val_split", 0.5, 0)
    shared = set(val.tolist()) & set(balanced_subset(strata, 50, 0).tolist())
    assert 10 < len(shared) < 40  # 25 ± 2.5 when independent


@pytest.mark.parametrize("size", [-1, 0, 3, 102])
def test_subset_too_small_or_too_large_is_refused(size, refused):
    with refused("`num_train`", "between 4", "101", f"num_train={size}"):
        balanced_subset(UNEVEN, size, 0)


# --- order of an epoch


def sampler(length=23, batch_size=4, *, epoch=0, **options):
    images = ImageSet(torch.zeros(length, 3, 1, 1, dtype=torch.uint8), torch.zeros(length, dtype=torch.int64))
    options = {"train": True, "seed": 0} | options
    made = BatchSampler(BatchDataset(images, torch.arange(length)), batch_size, **options)
    made.set_epoch(epoch)
    return made


def indices(draws):
    return [i for draw in draws for i in draw.index.tolist()]


def facts(draws):
    return [(draw.index.tolist(), draw.seed) for draw in draws]


@pytest.mark.parametrize("length", [2, 3, 20, 23, 24])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_without_padding_each_image_comes_once(length, devices):
    options = {"train": False, "num_replicas": devices, "pads": False}
    parts = [list(sampler(length, rank=rank, **options)) for rank in range(devices)]
    found = [i for part in parts for i in indices(part)]
    assert sorted(set(found)) == list(range(length)) and len(found) == max(length, devices)
    assert all(parts) and [len(part) for part in parts] == [
        len(sampler(length, rank=rank, **options)) for rank in range(devices)
    ]


@pytest.mark.parametrize("length", [20, 23, 24])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_training_batches_are_complete_and_no_image_comes_twice(length, devices):
    ranks = [list(sampler(length, num_replicas=devices, rank=rank)) for rank in range(devices)]
    for rank, draws in enumerate(ranks):
        assert len(draws) == length // devices // 4
        assert len(draws) == len(sampler(length, num_replicas=devices, rank=rank))
        assert all(len(draw.index) == 4 for draw in draws)
    seen = [i for draws in ranks for i in indices(draws)]
    assert len(seen) == len(set(seen)) and set(seen) <= set(range(length))


def test_two_devices_share_an_epoch_and_neither_augments_like_the_other():
    first, second = (list(sampler(24, num_replicas=2, rank=rank)) for rank in range(2))
    assert sorted(indices(first) + indices(second)) == list(range(24))
    seeds = [draw.seed for draw in first + second]
    assert len(set(seeds)) == len(seeds)


def test_other_images_are_dropped_each_epoch():
    dropped = [frozenset(range(23)) - set(indices(sampler(epoch=epoch))) for epoch in range(30)]
    assert all(len(rest) == 3 for rest in dropped)
    assert dropped[0] != dropped[1]
    assert frozenset().union(*dropped) == set(range(23))


@pytest.mark.parametrize(("length", "batch_size"), [(23, 4), (24, 4), (3, 3), (1, 1)])
def test_evaluation_shows_every_image_once_in_order_and_unaugmented(length, batch_size):
    draws = list(sampler(length, batch_size, train=False, epoch=3))
    assert indices(draws) == list(range(length))
    assert [len(draw.index) for draw in draws[:-1]] == [batch_size] * (len(draws) - 1)
    assert all(draw.seed is None for draw in draws)
    assert len(draws) == len(sampler(length, batch_size, train=False))


@pytest.mark.parametrize(("length", "devices"), [(23, 2), (24, 2), (23, 3), (3, 8)])
def test_evaluation_on_several_devices_covers_every_image_in_equal_steps(length, devices):
    ranks = [list(sampler(length, 4, train=False, num_replicas=devices, rank=rank)) for rank in range(devices)]
    assert {i for draws in ranks for i in indices(draws)} == set(range(length))
    assert len({len(indices(draws)) for draws in ranks}) == 1


BASE = {"seed": 3, "stream": "main", "epoch": 2}


def test_the_same_coordinates_give_the_same_draws():
    resumed = sampler(seed=3)
    list(resumed)  # epoch 0 was played before
    resumed.set_epoch(2)
    assert facts(resumed) == facts(sampler(**BASE)) == facts(sampler(**BASE))


@pytest.mark.parametrize("change", [{"seed": 4}, {"stream": "agent"}, {"epoch": 3}])
def test_any_other_coordinate_gives_another_order_and_other_augmentations(change):
    draws, others = list(sampler(**BASE)), list(sampler(**BASE | change))
    assert indices(draws) != indices(others)
    assert not {draw.seed for draw in draws} & {draw.seed for draw in others}


def test_every_batch_has_an_augmentation_of_its_own():
    seeds = [draw.seed for epoch in range(20) for draw in sampler(epoch=epoch)]
    assert len(set(seeds)) == len(seeds) == 100


def test_draws_neither_read_nor_move_the_global_generator():
    torch.manual_seed(0)
    draws = facts(sampler())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert facts(sampler()) == draws
    assert torch.equal(torch.get_rng_state(), state)


def test_lightning_takes_it_for_a_distributed_sampler():
    # The type is what keeps Lightning from replacing it on several devices.
    assert isinstance(sampler(), DistributedSampler)
