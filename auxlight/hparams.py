"""Hyperparameters that any checkpoint reader and any logger can hold."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin
from lightning.pytorch.loggers import TensorBoardLogger

from auxlight.hierarchy import LabelHierarchy


def save_plain_hyperparameters(owner: HyperparametersMixin) -> None:
    """`save_hyperparameters` of the calling constructor, without what is no plain value.

    From the command line every argument is plain already (class paths and their arguments). In a script, objects
    (labelers, partial optimizers) are left out: a checkpoint must load with ``weights_only=True``.
    """
    frame = inspect.currentframe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*is an instance of `nn.Module`.*")  # it leaves again below
        owner.save_hyperparameters(frame=frame.f_back if frame else None, logger=False)
        dropped = [key for key, value in owner.hparams.items() if _plain(value) is _NOT_PLAIN]
    # Once more without the objects: Lightning keeps a deep copy of all that it was given.
    owner.save_hyperparameters(frame=frame.f_back if frame else None, ignore=dropped, logger=False)
    for key, value in owner.hparams.items():
        owner.hparams[key] = _plain(value)


_NOT_PLAIN = object()


def _plain(value: Any) -> Any:
    """The value in plain types, or `_NOT_PLAIN`. Subclasses are no plain types: numpy's floats are floats to Python."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, LabelHierarchy):
        return list(value.psi)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, dict):
        parts = {key: _plain(item) for key, item in value.items()}
        fits = all(isinstance(key, str) and item is not _NOT_PLAIN for key, item in parts.items())
        return parts if fits else _NOT_PLAIN
    if isinstance(value, list | tuple):
        items = [_plain(item) for item in value]
        if any(item is _NOT_PLAIN for item in items):
            return _NOT_PLAIN
        return items if isinstance(value, list) else tuple(items)
    return value if value is None or type(value) in (bool, int, float, str) else _NOT_PLAIN


class HyperparameterTab(L.Callback):
    """Fills TensorBoard's HPARAMS tab: arguments of model and data beside the validation accuracy.

    The tab reads a metric of its own, ``hp/val_accuracy`` (the best so far, which is what gets tested), so that no
    curve starts with a made-up value. Other loggers receive the arguments alone.
    """

    def __init__(self) -> None:
        self.best = 0.0

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the arguments."""
        data = getattr(getattr(trainer, "datamodule", None), "hparams", {})
        arguments = {f"data/{key}": value for key, value in data.items()}
        arguments |= {f"model/{key}": value for key, value in pl_module.hparams.items()}
        arguments = {key: value for key, value in arguments.items() if not key.endswith("/_instantiator")}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(arguments, {"hp/val_accuracy": 0.0})
            else:
                logger.log_hyperparams(arguments)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the tab's metric."""
        if not trainer.sanity_checking and "val/accuracy" in trainer.callback_metrics:
            self.best = max(self.best, float(trainer.callback_metrics["val/accuracy"]))
            pl_module.log("hp/val_accuracy", self.best)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a saved best."""
        self.best = state_dict["best"]
