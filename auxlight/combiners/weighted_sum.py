"""Fixed weights."""

from torch import Tensor

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext


class WeightedSum(Combiner):
    """L = mean_i ℓ_i^primary + Σ_m mean_i λ_i^m ℓ_i^m  (RL-AUX Eq. 2 and 7).

    λ_i^m is the module's `aux_weight` times the task's own weight, and times that which a labeler gives sample i.
    """

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        return losses.means().sum()
