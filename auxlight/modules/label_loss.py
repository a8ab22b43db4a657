"""The loss of a label network, made of a hypergradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget
from auxlight.distributed import Average
from auxlight.hypergradient import TargetGradient


def label_loss(
    targets: Sequence[AuxiliaryTarget], slopes: Sequence[TargetGradient], entropy_weight: float, average: Average
) -> Tensor:
    """A scalar whose gradient is that of L_pri(θ⁺) + `entropy_weight`·H, H the *negative* batch entropy (Eq. 3).

    It is linear in the targets, and its value means nothing. H is that of the mean label over all devices:
    ∂H/∂p̄_k = 1 + log p̄_k.

    Args:
        targets: with their graph.
        slopes: of L_pri(θ⁺) with respect to them.
        entropy_weight: coefficient of H, which is averaged over the targets.
        average: mean over devices.
    """
    total = targets[0].probabilities.new_zeros(())
    for target, slope in zip(targets, slopes, strict=True):
        mean = target.probabilities.mean(0)
        everywhere = average({"mean": mean.detach()})["mean"]
        # A class without images has a slope of −∞, which straight-through labels would follow: that of half an image.
        entropy_slope = 1 + everywhere.where(everywhere > 0, 0.5 / len(target.probabilities)).log()
        total = total + (slope.probabilities * target.probabilities).sum() + (slope.weight * target.weight).sum()
        total = total + entropy_weight / len(targets) * (entropy_slope * mean).sum()
    return total


def normalized(slopes: Sequence[TargetGradient], masks: Sequence[Tensor], average: Average) -> list[TargetGradient]:
    """Slopes scaled to a root mean square of 1/B, those of labels and those of weights each by one factor.

    Of labels only the part counts that a softmax can follow: inside the block, the deviation from its mean.

    Args:
        slopes: one per batch.
        masks: (B, K) bool of each batch, the images' blocks.
        average: mean over devices.
    """
    sums, counts = [], []
    for slope, mask in zip(slopes, masks, strict=True):
        sizes = mask.sum(1, keepdim=True)
        inside = slope.probabilities * mask
        deviation = (inside - inside.sum(1, keepdim=True) / sizes) * mask
        sums.append(torch.stack([deviation.square().sum(), slope.weight.square().sum()]))
        counts.append(torch.stack([sizes.sum(), sizes.new_tensor(len(sizes))]))
    total = average({"sums": torch.stack(sums).sum(0), "counts": torch.stack(counts).sum(0).to(sums[0])})
    squares = total["sums"] / total["counts"]
    labels, weights = squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt()
    return [
        TargetGradient(slope.probabilities * labels / len(mask), slope.weight * weights / len(mask))
        for slope, mask in zip(slopes, masks, strict=True)
    ]
