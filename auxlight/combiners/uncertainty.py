"""Weights by each task's learned uncertainty."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.errors import InputError


class UncertaintyWeighting(Combiner):
    """Uncertainty weighting; the log-variances s_m = log σ_m² are trained by the main optimizer, from 0.

    "kendall": L = Σ_m ½ e^{−s_m} L_m + ½ s_m (Kendall et al., 2018); "liebel": L = Σ_m L_m / (2σ_m²) + ln(1 + σ_m²),
    whose regulariser never falls below 0 (Liebel & Körner, 2018). In a step in which a task's loss is 0, as where no
    image has a label, its s_m has no gradient: the regulariser alone would drive it towards weights without end.

    Args:
        regulariser: which of the two.
    """

    log_variances: nn.Parameter

    def __init__(self, regulariser: Literal["kendall", "liebel"] = "kendall") -> None:
        super().__init__()
        if regulariser not in ("kendall", "liebel"):
            raise InputError(f"`regulariser` must be 'kendall' or 'liebel'. Found regulariser={regulariser!r}.")
        self.regulariser = regulariser

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        super().bind(names)
        self.log_variances = nn.Parameter(torch.zeros(len(names)))

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        s = self.log_variances
        weights = 0.5 * torch.exp(-s)
        self.note("weight", weights)
        penalty = 0.5 * s if self.regulariser == "kendall" else nn.functional.softplus(s)  # ln(1 + e^s)
        means = losses.means()
        return (weights * means + penalty.where(means.detach() != 0, 0)).sum()
