"""Hyperparameters that any checkpoint reader and any logger can hold."""

import inspect
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.core.mixins.hparams_mixin import HyperparametersMixin
from lightning.pytorch.loggers import TensorBoardLogger


def save_plain_hyperparameters(owner: HyperparametersMixin) -> None:
    """`save_hyperparameters` of the calling constructor, without what is no plain value.

    From the command line every argument is plain already (class paths and their arguments). In a script, objects
    (labelers, partial optimizers) are left out: a checkpoint must load with ``weights_only=True``.
    """
    frame = inspect.currentframe()
    owner.save_hyperparameters(frame=frame.f_back if frame else None, logger=False)
    for key, value in list(owner.hparams.items()):
        if isinstance(value, Path):
            owner.hparams[key] = str(value)
        elif not _is_plain(value):
            del owner.hparams[key]


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


class HyperparameterTab(L.Callback):
    """Fills TensorBoard's HPARAMS tab: arguments of model and data beside the validation accuracy.

    The tab reads a metric of its own, ``hp/val_accuracy`` (the latest), so that no curve starts with a made-up value.
    Other loggers receive the arguments alone.
    """

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
            pl_module.log("hp/val_accuracy", trainer.callback_metrics["val/accuracy"])
