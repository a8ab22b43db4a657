"""Weights that make the tasks' gradients equally long."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Adam

from auxlight.combiners.base import TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import check_finite, task_slopes
from auxlight.combiners.learned import LearnedCombiner, MakeOptimizer
from auxlight.errors import InputError


class GradNorm(LearnedCombiner):
    """GradNorm (Chen et al., 2018).

    L = Σ_m w_m L_m. After each step the weights take one on ``Σ_m |G_m − Ḡ·r_m^α|``, where G_m = w_m ‖∇_W L_m‖ is the
    length of the task's gradient for the last shared layer W, Ḡ their mean (a constant, as are the r_m), and r_m the
    task's inverse training rate: L_m over its value in the first step, relative to the mean of all tasks'. Then the
    weights are scaled to sum to M; none falls below 0.0001 before. A task whose loss is 0 (as without a label) has its
    first step when that is positive, and no part in the rule before.

    Args:
        alpha: α ≥ 0: how much slow tasks are helped; the paper: 1.5.
        optimizer: of the weights; Adam at the paper's 0.025.

    Raises:
        InputError: α below 0.
    """

    computes_gradients = True
    weights: nn.Parameter
    initial: Tensor

    def __init__(self, alpha: float = 1.5, optimizer: MakeOptimizer = lambda params: Adam(params, lr=0.025)) -> None:
        super().__init__(optimizer)
        if not 0 <= alpha < float("inf"):
            raise InputError(f"`alpha` must be at least 0. Found alpha={alpha}.")
        self.alpha = alpha

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        self.weights = nn.Parameter(torch.ones(len(names)), requires_grad=False)
        self.register_buffer("initial", torch.zeros(len(names)))
        super().bind(names)

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        scalars = losses.scalars()
        means = torch.stack(scalars)
        total = (self.weights.detach().clone() * means).sum()
        self.note("weight", self.weights.clone())
        layer = context.last_layer
        found = [task_slopes(mean, [layer], retain_graph=True)[0] for mean in scalars]
        slopes = [torch.zeros_like(layer) if slope is None else slope for slope in found]
        slopes_and_means = context.average({"slopes": torch.stack(slopes), "means": means.detach()})
        norms = slopes_and_means["slopes"].flatten(1).norm(dim=1)
        check_finite(norms, slopes_and_means["means"])
        self._balance(norms, slopes_and_means["means"], context)
        return total

    @torch.no_grad()
    def _balance(self, norms: Tensor, means: Tensor, context: StepContext) -> None:
        tiny = torch.finfo(means.dtype).tiny
        self.initial.copy_(torch.where(self.initial == 0, means.clamp_min(0), self.initial))
        begun = self.initial > 0
        rates = torch.where(begun, means / self.initial.clamp_min(tiny), 0)
        rates = rates * begun.sum() / rates.sum().clamp_min(tiny)
        lengths = self.weights * norms
        goals = lengths[begun].sum() / begun.sum().clamp_min(1) * rates**self.alpha
        self.move([torch.where(begun, (lengths - goals).sign() * norms, 0)], context)
        self.weights.clamp_(min=1e-4)
        self.weights.mul_(len(means) / self.weights.sum())
