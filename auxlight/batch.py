"""The two values that flow through everything."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images with their labels, ready for a network.

    Attributes:
        image: (B, C, H, W) float, augmented and normalised.
        primary: (B,) int64, primary class, in [0, C); −1 where a semi-supervised data set hides it.
        auxiliary: (B,) int64, human sub-label as an index into the K auxiliary classes, or None where the data set
            has none.
        index: (B,) int64, position in the data set's full split (training images: the full training set).
    """

    image: Tensor
    primary: Tensor
    auxiliary: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for

    def select(self, chosen: Tensor) -> "Batch":
        """The images chosen by a mask (B,) bool."""
        auxiliary = None if self.auxiliary is None else self.auxiliary[chosen]
        return Batch(self.image[chosen], self.primary[chosen], auxiliary, self.index[chosen])


class AuxiliaryTarget(NamedTuple):
    """What a labeler says about a batch.

    Attributes:
        probabilities: (B, K) soft label, each row sums to 1.
        weight: (B,) weight λ_i ≥ 0 of each sample's auxiliary loss.
    """

    probabilities: Tensor
    weight: Tensor
