"""Optimizers and schedulers; what torch finds wrong with their arguments is the user's mistake."""

from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from auxlight.errors import InputError


def make_optimizer(make: OptimizerCallable, parameters: list[nn.Parameter], name: str = "optimizer") -> Optimizer:
    """An optimizer over these parameters.

    Raises:
        InputError: arguments that it does not take; `name` is the parameter that they were given by.
    """
    try:
        return make(parameters)
    except ValueError as error:
        raise InputError(f"`{name}` does not take its arguments: {error}.") from error


def make_scheduler(
    make: LRSchedulerCallable, optimizer: Optimizer, name: str = "scheduler"
) -> LRScheduler | ReduceLROnPlateau:
    """A scheduler of an optimizer.

    Raises:
        InputError: arguments that it does not take; `name` is the parameter that they were given by.
    """
    try:
        return make(optimizer)
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"`{name}` does not take its arguments: {error}.") from error
