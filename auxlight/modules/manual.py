"""What Lightning leaves to a module with manual optimisation."""

from collections.abc import Sequence
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from auxlight.distributed import Average
from auxlight.errors import InputError


def finish_gradients(parameters: Sequence[nn.Parameter], average: Average, clip_norm: float | None) -> None:
    """Average the gradients over the devices, then clip their norm."""
    named = {str(number): cast(Tensor, parameter.grad) for number, parameter in enumerate(parameters)}
    for parameter, gradient in zip(parameters, average(named).values(), strict=True):
        parameter.grad = gradient
    if clip_norm is not None:
        clip_grad_norm_(parameters, clip_norm)


@torch.no_grad()
def share_statistics(module: nn.Module, average: Average) -> None:
    """Average floating-point buffers over the devices: DDP shares none, and batch norm's would drift apart."""
    buffers = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    for name, mean in average(buffers).items() if buffers else ():
        buffers[name].copy_(mean)


def step_scheduler(module: L.LightningModule, optimizer: Optimizer) -> None:
    """Step the scheduler of one of the module's optimizers, if it has one that asks for no metric."""
    for scheduler in _schedulers(module):
        if scheduler.optimizer is optimizer and not isinstance(scheduler, ReduceLROnPlateau):
            module.lr_scheduler_step(scheduler, None)


def step_plateaus(module: L.LightningModule, metric: Tensor | None) -> None:
    """Step the module's schedulers that ask for a metric.

    Raises:
        InputError: there are some, but no metric.
    """
    for scheduler in _schedulers(module):
        if isinstance(scheduler, ReduceLROnPlateau):
            if metric is None:
                raise InputError(
                    "A ReduceLROnPlateau scheduler needs a validation before each of its steps. Found none: "
                    "validate every epoch, or choose another scheduler."
                )
            module.lr_scheduler_step(cast(Any, scheduler), metric)


def _schedulers(module: L.LightningModule) -> list[Any]:
    found = module.lr_schedulers()
    return found if isinstance(found, list) else [] if found is None else [found]
