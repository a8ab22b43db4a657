"""A wide residual network under a primary and auxiliary heads."""

from collections.abc import Sequence
from typing import Unpack

from auxlight.hierarchy import LabelHierarchy
from auxlight.modules.classifier import AuxiliaryClassifier, ClassifierOptions
from auxlight.networks.wide_resnet import WideResNet


class MultiHeadWideResNet(AuxiliaryClassifier):
    """WRN-28-2 trunk and two-layer heads: the network of AuxiNash's and ARML's semi-supervised study.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        depth: see `WideResNet`.
        widen: see `WideResNet`.
        width: see `WideResNet`.
        in_channels: channels of the image.
        norm_momentum: see `WideResNet`.
        **options: labeler, tasks, combiner, aux_weight, focal_gamma, optimizer, scheduler and the other arguments of
            `AuxiliaryClassifier`.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        depth: int = 28,
        widen: int = 2,
        width: float = 1.0,
        in_channels: int = 3,
        norm_momentum: float = 1e-3,
        **options: Unpack[ClassifierOptions],
    ) -> None:
        super().__init__(hierarchy, WideResNet(depth, widen, width, in_channels, norm_momentum), **options)
