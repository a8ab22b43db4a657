"""What the views show: a fixed sample of validation images and what the network makes of it."""

from __future__ import annotations

from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.datamodules.base import ImageDataModule
from auxlight.inspection.record import EpochLabels
from auxlight.modules.aside import aside
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.buffers import evaluation_mode


class Evidence(NamedTuple):
    """Of N validation images, computed once for all views; tensors without a graph, on the module's device.

    Attributes:
        module: whose network it is.
        data: where the images come from.
        image: (N, 3, H, W) uint8, as they are.
        batch: the same as the network sees them, with their labels.
        features: (N, D) of the trunk.
        logits: (N, C), primary.
        losses: (N,), primary.
        target: the labeler's labels (N, K) and weights (N,) of them; None without a labeler.
        trained: the labels and weights that the last epoch trained with; None without a labeler.
    """

    module: AuxiliaryClassifier
    data: ImageDataModule
    image: Tensor
    batch: Batch
    features: Tensor
    logits: Tensor
    losses: Tensor
    target: AuxiliaryTarget | None
    trained: EpochLabels | None


def gather(
    trainer: L.Trainer,
    module: AuxiliaryClassifier,
    data: ImageDataModule,
    num_images: int,
    seed: int,
    trained: EpochLabels | None,
) -> Evidence:
    """The evidence; leaves no trace in the module and the random generators.

    Args:
        trainer: in a fit.
        module: its module.
        data: its data module.
        num_images: how many validation images at most.
        seed: of their choice.
        trained: see `Evidence`.
    """
    raw = data.sample("val", num_images, seed)
    batch: Batch = trainer.strategy.batch_to_device(raw)
    parts = []
    with aside(module, seed), evaluation_mode(module), torch.no_grad(), trainer.precision_plugin.val_step_context():
        for positions in torch.split(torch.arange(len(raw.index), device=batch.index.device), data.batch_size):
            some = batch.select(positions)
            features = module.features(some.image)
            logits = module.primary_head(features)
            columns = [features, logits, module.primary_losses(logits, some)]
            if module.labelled_task is not None:
                columns += list(module.labelled_task.labeler(some, features))
            parts.append(columns)
    features, logits, losses, *target = (torch.cat(column).float() for column in zip(*parts, strict=True))
    labels = AuxiliaryTarget(*target) if target else None
    return Evidence(module, data, raw.image, batch, features, logits, losses, labels, trained)
