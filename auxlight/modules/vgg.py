"""The papers' network: a VGG trunk under a primary and an auxiliary head."""

from collections.abc import Sequence
from typing import Literal

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch.optim import SGD

from auxlight.combiners import Combiner
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.base import Labeler
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.vgg import VGG


class MultiHeadVGG(AuxiliaryClassifier):
    """VGG trunk, two-layer heads, masked-softmax focal auxiliary loss; see `AuxiliaryClassifier`.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        depth: 11, 13, 16 or 19.
        width: factor on every layer's channels; 1 is the papers' network.
        in_channels: channels of the image.
        head_dim: hidden size of the heads; the features' size by default (512 at full width).
        labeler: source of the auxiliary labels; None trains the primary task alone.
        combiner: how the losses become one; the weighted sum by default.
        aux_weight: λ ≥ 0, a factor on every auxiliary loss.
        focal_gamma: γ ≥ 0 of both losses; 2 is the papers' focal loss, 0 cross-entropy.
        optimizer: parameters → optimizer. The papers' plain SGD at 0.01 by default.
        scheduler: optimizer → learning-rate scheduler; none by default.
        scheduler_interval: step the scheduler each "epoch" or each "step".
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        head_dim: int | None = None,
        labeler: Labeler | None = None,
        combiner: Combiner | None = None,
        aux_weight: float = 1.0,
        focal_gamma: float = 2.0,
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__(
            hierarchy,
            VGG(depth, width, in_channels),
            head_dim=head_dim,
            labeler=labeler,
            combiner=combiner,
            aux_weight=aux_weight,
            focal_gamma=focal_gamma,
            optimizer=optimizer,
            scheduler=scheduler,
            scheduler_interval=scheduler_interval,
        )
