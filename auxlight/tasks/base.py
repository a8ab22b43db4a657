"""What a module trains beside its primary task."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy


class TaskPlace(NamedTuple):
    """The module that a task becomes part of.

    Attributes:
        hierarchy: its primary and auxiliary classes.
        trunk: images → (B, feature_dim), shared by all tasks.
        feature_dim: size of the features.
        head_dim: hidden size of the heads; None for the features' size.
        focal_gamma: γ of the losses.
    """

    hierarchy: LabelHierarchy
    trunk: nn.Module
    feature_dim: int
    head_dim: int | None = None
    focal_gamma: float = 2.0


class AuxiliaryTask(nn.Module, ABC):
    """A task over the shared trunk; it owns its head.

    An own task is one class::

        import torch
        from auxlight import AuxiliaryTask, Head

        class Brightness(AuxiliaryTask):
            def bind(self, place):
                self.head = Head(place.feature_dim, 1, place.head_dim)

            def forward(self, trunk, features, batch):
                losses = (self.head(features)[:, 0] - batch.image.mean((1, 2, 3))).square()
                return losses, torch.ones_like(losses)

    Attributes:
        draws: whether `forward` draws at random. Then its generators are seeded by the batch and the epoch, so that
            runs resume and can be repeated.

    Args:
        weight: λ ≥ 0 of this task, a factor beside the module's `aux_weight`.

    Raises:
        InputError: a weight below 0 or not finite.
    """

    draws = False
    weight: float = 1.0

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if not (weight >= 0 and math.isfinite(weight)):
            raise InputError(f"`weight` of {type(self).__name__} must be a finite number ≥ 0. Found weight={weight}.")
        self.weight = weight

    def bind(self, place: TaskPlace) -> None:  # a task may have no head
        """Called once by the module that uses this task; its head is made here."""

    @abstractmethod
    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses of a batch.

        Args:
            trunk: the shared trunk, for a task with images of its own (rotated, masked, …).
            features: (B, D) of the batch's images.
            batch: the images with their labels.

        Returns:
            Unweighted losses (n,) of those images that the task has a label for, B where it has all, and the weight
            (n,) of each.
        """

    def evaluate(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """What is logged of a validation or test batch beside the primary metrics: means over its images, by name."""
        return {}

    def before_step(self, trunk: nn.Module) -> None:  # most tasks keep no books
        """Called by `training_step` before the first batch of each step; a training loop of one's own calls it, too."""


def task_names(tasks: Sequence[AuxiliaryTask]) -> list[str]:
    """("primary", …): of a module's tasks, by their classes; a second one of a kind has its number."""
    names, counts = ["primary"], Counter(["primary"])
    for task in tasks:
        name = type(task).__name__.removesuffix("Task").lower()
        counts[name] += 1
        names.append(f"{name}_{counts[name]}" if counts[name] > 1 else name)
    return names
