"""Weights by how fast each task's loss falls."""

from collections.abc import Sequence

import torch
from torch import Tensor

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.errors import InputError


class DynamicWeightAverage(Combiner):
    """DWA (Liu et al., 2019): in epoch t, w = M · softmax(r / T), r_m = L_m(t − 1) / L_m(t − 2); 1 in the first two.

    L_m(t) is the task's mean loss in epoch t, over the devices. A loss that falls more slowly than the others' weighs
    more. A task whose loss was 0 in one of the two epochs (as before it has labels) weighs 1 and has no part in the
    rule; a step whose losses are not finite counts for none.

    Args:
        temperature: T; the paper: 2.
    """

    weights: Tensor
    total: Tensor
    before: Tensor
    epoch: Tensor

    def __init__(self, temperature: float = 2.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"`temperature` must be positive. Found temperature={temperature}.")
        self.temperature = temperature

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        super().bind(names)
        self.register_buffer("weights", torch.ones(len(names)))
        self.register_buffer("total", torch.zeros(len(names) + 1))  # of the losses, and the number of steps
        self.register_buffer("before", torch.zeros(len(names)))  # mean losses of the epoch before; 0: none
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        means = losses.means()
        if context.epoch < int(self.epoch):  # another fit
            self._forget()
        if context.epoch != int(self.epoch):
            self._turn(context.epoch)
        # Averaged now: DDP gives every device the first one's buffers.
        step = torch.cat([context.mean(means.detach()), means.new_ones(1)])
        self.total += step.where(step.isfinite().all(), 0)
        self.note("weight", self.weights)
        return (self.weights * means).sum()

    def _forget(self) -> None:
        self.weights.fill_(1)
        for buffer in (self.total, self.before, self.epoch):
            buffer.zero_()

    @torch.no_grad()
    def _turn(self, epoch: int) -> None:
        """An epoch is over."""
        if self.total[-1] > 0:
            last = self.total[:-1] / self.total[-1]
            seen = (self.before > 0) & (last > 0)
            rates = (last[seen] / self.before[seen]).clamp(max=torch.finfo(last.dtype).max)
            self.weights.fill_(1)
            self.weights[seen] = seen.sum() * (rates / self.temperature).softmax(0)
            self.before.copy_(last)
        self.total.zero_()
        self.epoch.fill_(epoch)
