"""Control: labels that mean nothing."""

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.labelers.base import Labeler
from auxlight.seeding import derive_seed, global_seed, hash_integers


class RandomLabels(Labeler):
    """A random auxiliary class inside each image's block, one-hot.

    What a method gains over this is due to the *choice* of labels, not to there being any.

    Args:
        fixed: True: an image keeps its label through training; False: a fresh draw each time it is seen.
        seed: of the draw; by default the run's. Two that label for one module need different ones, or label alike.
    """

    steps: Tensor

    def __init__(self, fixed: bool = True, seed: int | None = None) -> None:
        super().__init__()
        self.fixed = fixed
        self.seed = seed
        # In the checkpoint, so that a resumed run draws on where it stopped.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        seed = global_seed() if self.seed is None else self.seed
        if not self.fixed:
            self.steps += 1
        draw = hash_integers(batch.index, derive_seed(seed, "random labels", int(self.steps)))
        return self.hard_target(self.hierarchy.to_global(batch.primary, draw))
