"""What the n-th label of a type still tells: our reconstruction of TABA's diminishing information."""

from typing import Protocol

import numpy as np

from auxlight.errors import InputError


class Gain(Protocol):
    """How much information n labels hold, in units of the first block's; one of your own is any such function.

    All types of an allocation must count in the same block.
    """

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """Of each count (N,) int64 ≥ 0: information (N,), 0 for none, and never falling."""


class NoGain:
    """g(n) = 0: labels of which more tell nothing."""

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """See `Gain`."""
        return np.zeros(np.shape(count))


class GeometricGain:
    """g(n) = (1 − β^(n / block)) / (1 − β): each further block of labels tells β times what the one before it told.

    *Our reconstruction*: the public description of TABA speaks of a reduction rate β_i of each task's information gain,
    and gives no formula. At β → 1 nothing wears off, g(n) = n / block, and the allocation becomes a linear knapsack.

    Args:
        beta: β, in (0, 1].
        block: labels in a block, > 0.

    Raises:
        InputError: values out of range.
    """

    def __init__(self, beta: float, block: float = 1.0) -> None:
        if not 0 < beta <= 1:
            raise InputError(f"`beta` must lie above 0, and at 1 at most. Found beta={beta}.")
        if not 0 < block < float("inf"):
            raise InputError(f"`block` must be positive. Found block={block}.")
        self.beta = beta
        self.block = block

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """See `Gain`."""
        blocks = np.asarray(count, dtype=np.float64) / self.block
        if self.beta == 1:
            return blocks
        # expm1 keeps the digits where β is close to 1.
        told: np.ndarray = np.expm1(blocks * np.log(self.beta)) / (self.beta - 1)
        return told
