"""What is measured of a network beside its metrics."""

import math
from typing import Any, cast

import lightning as L
import torch

from auxlight.datamodules import ImageDataModule
from auxlight.inspection.gradients import task_gradients
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.networks.buffers import evaluation_mode

GRADIENT_IMAGES = 64


def logged(trainer: L.Trainer) -> dict[str, float]:
    """Metrics so far."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}


def trunk_gradients(trainer: L.Trainer, module: L.LightningModule) -> dict[str, float]:
    """Lengths and cosines of the tasks' gradients for the trunk, on always the same validation images."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(module, AuxiliaryClassifier) or not isinstance(data, ImageDataModule):
        return {}
    batch = trainer.strategy.batch_to_device(data.sample("val", GRADIENT_IMAGES, 0))
    return {name: value for name, value in task_gradients(module, batch).items() if math.isfinite(value)}


class StepLength:
    """How far a step moves the trunk: 0 before the first one that is measured, and where there is no trunk."""

    def __init__(self) -> None:
        self.value = 0.0
        self._before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def begin(self, module: L.LightningModule) -> None:
        """Before the step, where the trunk stands."""
        if isinstance(module, AuxiliaryClassifier):
            self._before = [(parameter, parameter.detach().clone()) for parameter in module.trunk.parameters()]

    def end(self) -> None:
        """And after it, how far it went; nothing where none has begun."""
        if self._before:
            self.value = sum(float((now.detach() - before).square().sum()) for now, before in self._before) ** 0.5
            self._before = []


@torch.no_grad()
def accuracy_on_test(trainer: L.Trainer, module: L.LightningModule) -> float:
    """Of the network as it is; on several devices of all their shares."""
    right = count = 0
    data = cast(ImageDataModule, cast(Any, trainer).datamodule)
    with evaluation_mode(module), trainer.precision_plugin.val_step_context():
        for raw in data.loader("test"):
            batch = trainer.strategy.batch_to_device(raw)
            right += int((module(batch.image).argmax(-1) == batch.primary).sum())
            count += len(batch.primary)
    sums = torch.tensor([right, count], device=module.device)
    of_all = cast(torch.Tensor, trainer.strategy.reduce(sums, reduce_op="sum"))
    return float(of_all[0] / of_all[1])
