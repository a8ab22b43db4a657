"""What a module trains beside its primary task."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from auxlight.batch import Batch


class AuxiliaryTask(nn.Module, ABC):
    """A task over the shared trunk; it owns its head."""

    @abstractmethod
    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Losses of a batch.

        Args:
            trunk: the shared trunk, for a task with images of its own (rotated, masked, …).
            features: (B, D) of the batch's images.
            batch: the images with their labels.

        Returns:
            Unweighted losses (B,) and the weight (B,) of each.
        """
