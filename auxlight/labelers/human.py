"""The data set's own sub-classes."""

from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.labelers.base import Labeler


class HumanLabels(Labeler):
    """The human sub-label, one-hot (RL-AUX Eq. 2: "human" in its figures).

    Raises:
        InputError: in the first step, where the data set has no human sub-labels.
    """

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        return self.human_target(batch)
