"""The papers' network: a VGG trunk under a primary and an auxiliary head."""

from collections.abc import Sequence
from typing import Unpack

from auxlight.hierarchy import LabelHierarchy
from auxlight.modules.classifier import AuxiliaryClassifier, ClassifierOptions
from auxlight.networks.vgg import VGG


class MultiHeadVGG(AuxiliaryClassifier):
    """VGG trunk, two-layer heads, masked-softmax focal auxiliary loss.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        depth: 11, 13, 16 or 19.
        width: factor on every layer's channels; 1 is the papers' network.
        in_channels: channels of the image.
        **options: labeler, tasks, combiner, aux_weight, focal_gamma, optimizer, scheduler and the other arguments of
            `AuxiliaryClassifier`.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        **options: Unpack[ClassifierOptions],
    ) -> None:
        super().__init__(hierarchy, VGG(depth, width, in_channels), **options)
