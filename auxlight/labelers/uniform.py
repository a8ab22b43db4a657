"""Control: targets without any choice."""

from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.functional import masked_softmax
from auxlight.labelers.base import Labeler


class UniformLabels(Labeler):
    """Probability 1/ψ_y on each auxiliary class of the image's block.

    The auxiliary task is then the primary task over again; a label network that never leaves its symmetric start
    (MAXL at the paper's rates) gives the same targets.
    """

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        mask = self.mask[batch.primary]
        probabilities = masked_softmax(features.new_zeros(mask.shape), mask)
        return AuxiliaryTarget(probabilities, probabilities.new_ones(len(mask)))
