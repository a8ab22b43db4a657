"""Weights by whether an auxiliary task's gradient points where the primary one's does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import TaskGradients, TaskWeights, Update, primary_cosines
from auxlight.errors import InputError


class GradientCosine(TaskWeights):
    """GCS, adapting auxiliary losses by gradient similarity (Du et al., 2018).

    Of each auxiliary task the shared parameters get the gradient only where its cosine with the primary one is
    positive; the heads always get theirs.

    Args:
        weighted: times the cosine (the paper's other version), instead of in whole.
    """

    def __init__(self, weighted: bool = False) -> None:
        super().__init__()
        self.weighted = weighted

    def combine(self, gradients: TaskGradients, means: Tensor, context: StepContext) -> Update:
        """See `GradientCombiner.combine`."""
        return Update(super().combine(gradients, means, context).shared, torch.ones_like(means))

    def weigh(self, gramian: Tensor, means: Tensor, context: StepContext) -> Tensor:
        """See `TaskWeights.weigh`."""
        cosines = primary_cosines(gramian)
        weights = cosines.clamp_min(0) if self.weighted else (cosines > 0).to(gramian)
        weights[0] = 1
        return weights


class OnlineAuxiliary(TaskWeights):
    """OL-AUX (Lin et al., 2019): weights that rise while a task's gradient agrees with the primary one.

    Every `horizon` steps w_m ← w_m + β Σ_steps ⟨g_primary, g_m⟩, from 1; the primary task weighs 1. A weight does not
    fall below 0 (the paper has no bound; a negative one would train the head to fail).

    Args:
        beta: β > 0.
        horizon: steps between updates of the weights; the paper: 5.
    """

    weights: Tensor
    agreement: Tensor
    steps: Tensor

    def __init__(self, beta: float = 0.1, horizon: int = 5) -> None:
        super().__init__()
        if not 0 < beta < float("inf") or horizon < 1:
            raise InputError(f"OL-AUX needs `beta` > 0 and `horizon` ≥ 1. Found beta={beta}, horizon={horizon}.")
        self.beta = beta
        self.horizon = horizon

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        super().bind(names)
        self.register_buffer("weights", torch.ones(len(names)))
        self.register_buffer("agreement", torch.zeros(len(names)))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weigh(self, gramian: Tensor, means: Tensor, context: StepContext) -> Tensor:
        """See `TaskWeights.weigh`."""
        weights = self.weights.clone()
        self.agreement += gramian[0].to(self.agreement)
        self.steps += 1
        if int(self.steps) % self.horizon == 0:
            self.weights[1:] = (self.weights[1:] + self.beta * self.agreement[1:]).clamp_min(0)
            self.agreement.zero_()
        return weights
