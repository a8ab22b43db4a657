"""Weights under which the auxiliary gradients add up to the primary one."""

from collections.abc import Sequence

import torch
from scipy.optimize import nnls
from torch import Tensor

from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import TaskWeights
from auxlight.errors import InputError


class ARML(TaskWeights):
    """Auxiliary task reweighting for minimum-data learning (Shi et al., 2020): min_α ‖g_primary − Σ_m α_m g_m‖², α ≥ 0.

    L = L_primary + Σ_m α_m L_m. The inner products of the gradients are averaged over steps, and the least-squares
    problem is then solved outright. The authors take a projected step on it every 20 steps, at a rate of 0.05, with
    Langevin noise on the network, and hold Σα at the number of auxiliary tasks; without that the weight of a task that
    does not help is 0.

    Args:
        memory: share of the inner products' moving average that is kept from step to step, in [0, 1).
    """

    products: Tensor
    steps: Tensor

    def __init__(self, memory: float = 0.9) -> None:
        super().__init__()
        if not 0 <= memory < 1:
            raise InputError(f"`memory` must be at least 0, and below 1. Found memory={memory}.")
        self.memory = memory

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        super().bind(names)
        self.register_buffer("products", torch.zeros(len(names), len(names), dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weigh(self, gramian: Tensor, means: Tensor, context: StepContext) -> Tensor:
        """See `TaskWeights.weigh`."""
        self.steps += 1
        keep = min(self.memory, 1 - 1 / int(self.steps))  # the first steps are a plain mean
        self.products.mul_(keep).add_(gramian, alpha=1 - keep)
        return least_squares_weights(self.products).to(gramian)


def least_squares_weights(gramian: Tensor) -> Tensor:
    """(1, α) with α ≥ 0 minimising ‖g_0 − Σ_m α_m g_m‖², from the inner products (M, M)."""
    gramian = gramian.cpu()
    # In units of each gradient's length; vectors of M dimensions with the same inner products do for the gradients.
    lengths = gramian.diagonal().sqrt()
    units = lengths.where(lengths > 0, 1.0)
    values, vectors = torch.linalg.eigh(gramian / units / units[:, None])
    rows = (vectors * values.clamp_min(0).sqrt()).numpy()
    weights = torch.ones_like(lengths)
    if len(lengths) > 1:
        weights[1:] = torch.from_numpy(nnls(rows[1:].T, rows[0])[0]) * lengths[0] / units[1:]
        weights[1:][lengths[1:] == 0] = 0
    return weights
