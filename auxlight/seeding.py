"""Random draws that depend on where they are made, not on what was drawn before.

A draw is a function of the run's seed and its own coordinates (stream, epoch, batch, …). So a resumed run, or one in
which an agent plays beside the main network, sees the images and augmentations that it would have seen anyway, and
two methods with one seed see the same ones.
"""

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

# 64-bit constants of splitmix64 as the signed integers that torch holds.
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def global_seed() -> int:
    """The seed given to ``lightning.seed_everything``, 0 without one: Lightning's own convention for its samplers."""
    return int(os.environ.get("PL_GLOBAL_SEED", 0))


def is_seeded() -> bool:
    """Whether ``lightning.seed_everything`` was given a seed."""
    return "PL_GLOBAL_SEED" in os.environ


def derive_seed(*coordinates: int | str) -> int:
    """A 63-bit seed for the draw at these coordinates; different coordinates give unrelated seeds."""
    digest = hashlib.blake2b(repr(coordinates).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def kept_rng() -> Iterator[None]:
    """Inside this block draws come from torch, numpy and random as usual; afterwards all stand where they stood."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """`kept_rng`, seeded."""
    with kept_rng():
        seed_generators(seed)
        yield


def seed_generators(seed: int) -> None:
    """Python's, numpy's, torch's and the present device's."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # The generators themselves: torch.manual_seed also prepares every device, for a millisecond each time.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)


def generator_states() -> list[Tensor]:
    """Of torch's generators: the CPU's and the present device's."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else [])]


def set_generators(states: list[Tensor]) -> None:
    """Put torch's generators where `generator_states` found them."""
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])


def hash_integers(values: Tensor, seed: int) -> Tensor:
    """splitmix64 of int64 `values`, folded to [0, 2^31): one independent-looking draw per value, on any device."""

    def xor_shift(z: Tensor, bits: int) -> Tensor:
        return z ^ ((z >> bits) & ((1 << (64 - bits)) - 1))  # a logical shift, torch's is arithmetic

    z = (values + 1) * _GOLDEN + seed
    z = xor_shift(z, 30) * _MIX_1
    z = xor_shift(z, 27) * _MIX_2
    return xor_shift(z, 31) & 0x7FFFFFFF
