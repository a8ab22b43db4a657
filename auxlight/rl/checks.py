"""What an agent cannot play with, said before it starts."""

from typing import Any, cast

import lightning as L

from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.labelers.agent import AgentLabels
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.rl.rewards import Reward


def check_module(module: L.LightningModule) -> tuple[AuxiliaryClassifier, AgentLabels]:
    """The module and its labeler, if an agent can teach it."""
    task = module.labelled_task if isinstance(module, AuxiliaryClassifier) else None
    labeler = None if task is None else task.labeler
    if not isinstance(labeler, AgentLabels) or not module.automatic_optimization:
        found = type(module).__name__ if labeler is None else f"labeler {type(labeler).__name__}"
        raise InputError(
            "RLAuxCallback needs an AuxiliaryClassifier with automatic optimisation and the labeler AgentLabels. "
            f"Found {found}: set `labeler: auxlight.AgentLabels`, or remove the callback."
        )
    return cast(AuxiliaryClassifier, module), labeler


def check_trainer(trainer: L.Trainer, kind: type) -> None:
    """The trainer's settings that the game honours."""
    if sum(isinstance(callback, kind) for callback in cast(Any, trainer).callbacks) > 1:
        raise InputError("One RLAuxCallback plays all of a module's agent epochs. Found several: keep one.")
    if trainer.accumulate_grad_batches != 1:
        raise InputError(
            "RLAuxCallback takes one step of the main network per batch. Found "
            f"accumulate_grad_batches={trainer.accumulate_grad_batches}: raise `batch_size` instead."
        )
    if trainer.precision in ("64-true", "bf16-true", "16-true"):
        raise InputError(
            f"RLAuxCallback's agent computes in float32. Found precision={trainer.precision}: set "
            "`trainer.precision` to 32 or bf16-mixed."
        )


def check_data(trainer: L.Trainer, reward: Reward) -> ImageDataModule:
    """The data module, if it has the images that the game draws."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageDataModule):
        raise InputError(
            "RLAuxCallback draws images beside the training loop and needs an auxlight data module. "
            f"Found {type(data).__name__}: subclass auxlight.datamodules.ImageDataModule."
        )
    if reward.held_out and not data.meta_split:
        raise InputError(
            "`held_out` of the reward needs held-out training images. Found meta_split=0: set `data.meta_split` to "
            "their share, such as 0.1."
        )
    return data
