"""The data set's own sub-classes."""

from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.labelers.base import Labeler


class HumanLabels(Labeler):
    """The human sub-label, one-hot (RL-AUX Eq. 2: "human" in its figures).

    Raises:
        InputError: in the first step, where the data set has no human sub-labels.
    """

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        if batch.auxiliary is None:
            raise InputError(
                "`labeler` HumanLabels needs a data set with human sub-labels. Found none: "
                "choose other data (CIFAR-100, digits, folders train/<primary>/<sub>/, .npz with train_auxiliary) or "
                "another labeler."
            )
        return self.hard_target(batch.auxiliary)
