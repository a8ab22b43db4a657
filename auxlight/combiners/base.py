"""How the losses of the tasks become one update of the shared parameters."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class TaskLosses(NamedTuple):
    """Losses of one batch, per sample.

    Attributes:
        primary: (B,).
        auxiliary: one (B,) per auxiliary task, unweighted.
        weights: one (B,) per auxiliary task: the labeler's λ_i times the module's λ.
    """

    primary: Tensor
    auxiliary: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    def auxiliary_means(self) -> list[Tensor]:
        """mean_i λ_i ℓ_i of each auxiliary task."""
        return [(w * loss).mean() for w, loss in zip(self.weights, self.auxiliary, strict=True)]


class Combiner(nn.Module, ABC):
    """Turns the losses of the tasks into the one that is minimised."""

    @abstractmethod
    def forward(self, losses: TaskLosses) -> Tensor:
        """Scalar to backpropagate."""
