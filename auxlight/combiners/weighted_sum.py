"""Fixed weights."""

from torch import Tensor

from auxlight.combiners.base import Combiner, TaskLosses


class WeightedSum(Combiner):
    """L = mean_i ℓ_i^primary + Σ_m mean_i λ_i^m ℓ_i^m  (RL-AUX Eq. 2 and 7).

    λ_i^m is the module's `aux_weight` times the weight that the labeler gives sample i.
    """

    def forward(self, losses: TaskLosses) -> Tensor:
        """See `Combiner.forward`."""
        total: Tensor = losses.primary.mean()
        for mean in losses.auxiliary_means():
            total = total + mean
        return total
