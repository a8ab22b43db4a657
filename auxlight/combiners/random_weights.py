"""Control: weights that mean nothing."""

import torch
from torch import Tensor

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.errors import InputError
from auxlight.seeding import derive_seed, global_seed


class RandomWeights(Combiner):
    """Random loss weighting, RLW (Lin et al., 2022): each step draws w = M · softmax(z), z ~ N(0, 1)^M.

    What a rule gains over this is due to its weights. The paper's weights sum to 1; here they sum to M, as those of
    the plain sum do, so that the step is as long as its.

    Args:
        seed: of the draws; by default the run's.
    """

    steps: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None and seed < 0:
            raise InputError(f"`seed` must be at least 0, or null for the run's. Found seed={seed}.")
        self.seed = seed
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        means = losses.means()
        seed = global_seed() if self.seed is None else self.seed
        generator = torch.Generator().manual_seed(derive_seed(seed, "random weights of tasks", int(self.steps)))
        self.steps += 1
        weights = len(means) * torch.randn(len(means), generator=generator).softmax(0).to(means)
        self.note("weight", weights)
        return (weights * means).sum()
