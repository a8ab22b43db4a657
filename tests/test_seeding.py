import random
from itertools import product

import lightning as L
import numpy as np
import pytest
import torch

from auxlight.seeding import derive_seed, global_seed, hash_integers, isolated_rng

# --- the global seed


def test_global_seed_is_lightnings(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    monkeypatch.setenv("PL_SEED_WORKERS", "0")
    with isolated_rng(0):
        L.seed_everything(1234, verbose=False)
    assert global_seed() == 1234


def test_global_seed_is_zero_without_one(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    assert global_seed() == 0


# --- seeds of coordinates


def test_all_coordinates_matter():
    grid = list(product(range(10), ("main", "agent"), ("order", "augment"), range(10), range(10)))
    assert len({derive_seed(*coordinates) for coordinates in grid}) == len(grid)


def test_the_order_of_coordinates_matters():
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed("a", "b") != derive_seed("b", "a")


@pytest.mark.parametrize(
    ("one", "other"),
    [((1, "a"), (1, "a", 0)), ((1,), (1, 0, 0)), ((2**32,), (0, 1)), ((2**32 + 5, 7), (5, 1, 7))],
)
def test_neither_zeros_nor_large_numbers_make_two_coordinates_one(one, other):
    assert derive_seed(*one) != derive_seed(*other)


def test_seeds_have_63_bits_each_as_often_set_as_not():
    seeds = [derive_seed(0, "stream", i) for i in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    torch.Generator().manual_seed(max(seeds))
    for bit in range(63):
        assert 880 < sum(seed >> bit & 1 for seed in seeds) < 1120  # 1000 ± 22, five standard deviations


def test_seeds_are_the_same_in_every_process():
    # Unlike hash(), whose strings are salted.
    assert derive_seed(0, "main", "order", 0) == 2249184997654499666


# --- isolated generators


def states():
    return random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()


def draw():
    return random.random(), np.random.random(), float(torch.rand(()))


def assert_same(one, other):
    assert one[0] == other[0]
    np.testing.assert_equal(one[1], other[1])
    assert torch.equal(one[2], other[2])


def test_a_block_is_seeded_and_leaves_no_trace():
    before = states()
    with isolated_rng(3):
        first = draw()
    assert_same(states(), before)
    with isolated_rng(3):
        assert draw() == first
    with isolated_rng(4):
        assert not set(draw()) & set(first)
    assert_same(states(), before)


def test_a_block_that_fails_leaves_no_trace():
    before = states()

    def fail():
        with isolated_rng(3):
            draw()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert_same(states(), before)


def test_a_block_takes_any_derived_seed():
    with isolated_rng(2**63 - 1):
        first = draw()
    with isolated_rng(derive_seed("x")):
        assert draw() != first


# --- hashed integers

# splitmix64 of seed 1234567, as published with xoshiro's reference implementation.
PUBLISHED = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


def splitmix64(value, seed):
    """In Python's unbounded integers."""
    word = 2**64 - 1
    z = (seed + (value + 1) * 0x9E3779B97F4A7C15) & word
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & word
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & word
    return (z ^ (z >> 31)) & 0x7FFFFFFF


def test_hash_is_the_published_generator():
    assert hash_integers(torch.arange(5), 1234567).tolist() == [number % 2**31 for number in PUBLISHED]


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**63 - 1])
def test_hash_is_exact_for_large_numbers(seed):
    values = [0, 1, 2, 49_999, 2**31, 2**40 + 3, 2**62]
    assert hash_integers(torch.tensor(values), seed).tolist() == [splitmix64(value, seed) for value in values]


def test_hash_keeps_the_shape_and_is_evenly_spread():
    draws = hash_integers(torch.arange(100_000).view(1000, 100), 5)
    assert draws.shape == (1000, 100)
    assert int(draws.min()) >= 0 and int(draws.max()) < 2**31
    counts = torch.bincount(draws.flatten() % 10, minlength=10)
    assert (counts - 10_000).abs().max() < 500  # ± 95, five standard deviations
