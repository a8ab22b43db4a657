"""What the agent is rewarded for."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.functional import batch_entropy
from auxlight.rl.learner import Learner


class Reward(ABC):
    """Trains the learner on a labelled batch and says what each label was worth.

    Attributes:
        batch_size: size of the evaluation batches that it wants.
    """

    batch_size: int

    @abstractmethod
    def __call__(self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Iterator[Batch]) -> Tensor:
        """One main step, then the reward of each of its images.

        Args:
            learner: to be stepped once on `batch` and `target`.
            batch: the images that the agent labelled.
            target: what it said.
            evaluation: endless batches of `batch_size` images.

        Returns:
            (B,) float.
        """


class BatchReward(Reward):
    """The paper's reward (Eq. 4): after the step, minus the primary loss on random training images.

    r = −L_primary(θ⁺) − entropy_weight · H, the same for every image of the batch, with H the *negative* entropy of the
    batch's mean label (Eq. 3). A positive `entropy_weight` therefore rewards using many labels, as the authors' code
    does; Eq. 4 as printed has the other sign and no coefficient, which is ``entropy_weight=-1``.

    Args:
        batch_size: B_R, random training images that measure the loss.
        entropy_weight: coefficient of the label entropy; the authors' code: 0.2.
    """

    def __init__(self, batch_size: int = 256, entropy_weight: float = 0.2) -> None:
        if batch_size < 1:
            raise InputError(f"`batch_size` of the reward must be at least 1. Found batch_size={batch_size}.")
        self.batch_size = batch_size
        self.entropy_weight = entropy_weight

    def __call__(self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Iterator[Batch]) -> Tensor:
        """See `Reward.__call__`."""
        learner.train_on(batch, target)
        loss = learner.primary_loss(next(evaluation))
        reward = -loss - self.entropy_weight * float(batch_entropy(target.probabilities))
        return torch.full((len(batch.primary),), reward)
