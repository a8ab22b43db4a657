"""Classification by where in its block the human sub-label lies."""

from torch import Tensor, nn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.functional import focal_loss
from auxlight.networks.heads import Head
from auxlight.tasks.base import AuxiliaryTask, TaskPlace


class PlaceTask(AuxiliaryTask):
    """The place of the human sub-label in its primary class's block, max ψ classes for all images together.

    Where the sub-labels mean the same in every block, as the second digit of a pair does (`MultiDigitDataModule`), this
    is a task of its own, next to the primary one and independent of it.

    Args:
        weight: see `AuxiliaryTask`.
    """

    head: nn.Module

    def bind(self, place: TaskPlace) -> None:
        """See `AuxiliaryTask.bind`."""
        self.hierarchy = place.hierarchy
        self.head = Head(place.feature_dim, max(place.hierarchy.psi), place.head_dim)
        self.focal_gamma = place.focal_gamma

    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `AuxiliaryTask.forward`."""
        if batch.auxiliary is None:
            raise InputError(
                "PlaceTask needs a data set with human sub-labels. Found none: choose other data or another task."
            )
        known = batch.auxiliary >= 0
        label = self.hierarchy.to_relative(batch.auxiliary[known])
        losses = focal_loss(self.logits(features[known]), label, self.focal_gamma)
        return losses, losses.new_ones(len(losses))

    def evaluate(self, features: Tensor, batch: Batch) -> dict[str, Tensor]:
        """See `AuxiliaryTask.evaluate`: the accuracy."""
        if batch.auxiliary is None:
            return {}
        right = self.logits(features).argmax(1) == self.hierarchy.to_relative(batch.auxiliary)
        return {"accuracy": right.float().mean()}

    def logits(self, features: Tensor) -> Tensor:
        """(B, max ψ)."""
        logits: Tensor = self.head(features)
        return logits
