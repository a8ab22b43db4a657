"""A classifier's main network as the hypergradients see it."""

from typing import cast

from torch import Tensor, nn

from auxlight.batch import Batch
from auxlight.functional import class_losses
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.tasks import LabelledTask

# A subclass that overrides one of these takes another step than the one that the hypergradients look through.
LOOKED_THROUGH = ("features", "task_losses", "step")


def looks_through(module: AuxiliaryClassifier) -> bool:
    """Whether the module's own step is made of what `JointLosses` computes."""
    return all(getattr(type(module), name) is getattr(AuxiliaryClassifier, name) for name in LOOKED_THROUGH)


class JointLosses(nn.Module):
    """Images → losses of every class (see `auxlight.influence`); shares the module's parts and its primary loss."""

    def __init__(self, module: AuxiliaryClassifier) -> None:
        super().__init__()
        self.trunk = module.trunk
        self.primary_head = module.primary_head
        self.auxiliary_head = cast(LabelledTask, module.labelled_task).head
        self.focal_gamma = module.focal_gamma
        self.primary_losses = module.primary_losses

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Primary losses (B,), and auxiliary losses (B, K) of every class."""
        features = self.trunk(batch.image)
        losses = self.primary_losses(self.primary_head(features), batch)
        return losses, class_losses(self.auxiliary_head(features), self.focal_gamma)
