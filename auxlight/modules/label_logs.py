"""What is logged of the labels that a label network learns with."""

from collections.abc import Sequence
from typing import Any

import lightning as L
import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget
from auxlight.functional import batch_entropy


@torch.no_grad()
def log_labels(
    module: L.LightningModule, targets: Sequence[AuxiliaryTarget], weighted: bool, meta_loss: Tensor
) -> None:
    """Per epoch: the loss that labels are judged by, their entropies, their sharpness, and what the weights are.

    Args:
        module: which logs.
        targets: of a step's batches.
        weighted: whether their weights are learned.
        meta_loss: a scalar.
    """
    probabilities, weight = (torch.cat(parts) for parts in zip(*targets, strict=True))
    means = {
        "labels/meta_loss": meta_loss,
        "labels/entropy": torch.stack([-batch_entropy(target.probabilities) for target in targets]).mean(),
        "labels/image_entropy": torch.special.entr(probabilities).sum(1).mean(),
        "labels/top_probability": probabilities.max(1).values.mean(),
    }
    options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(weight), "sync_dist": True}
    module.log_dict(means, **options)
    if not weighted:
        return
    module.log("labels/weight_mean", weight.mean(), **options)
    module.log("labels/weight_min", weight.min(), reduce_fx="min", **options)
    module.log("labels/weight_max", weight.max(), reduce_fx="max", **options)
