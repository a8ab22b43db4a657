"""What an agent cannot play with, said before it starts."""

from functools import partial
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_warn
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch.optim import LBFGS

from auxlight.combiners import WeightedSum
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.labelers.agent import AgentLabels
from auxlight.modules.checks import check_whole_parameters
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.rl.rewards import InfluenceReward, Reward


def check_module(module: L.LightningModule) -> tuple[AuxiliaryClassifier, AgentLabels]:
    """The module and its labeler, if an agent can teach it."""
    task = module.labelled_task if isinstance(module, AuxiliaryClassifier) else None
    labeler = None if task is None else task.labeler
    if not isinstance(labeler, AgentLabels) or not module.automatic_optimization:
        found = f"labeler {type(labeler).__name__} in {type(module).__name__}"
        raise InputError(
            "RLAuxCallback needs an AuxiliaryClassifier with automatic optimisation and the labeler AgentLabels. "
            f"Found {found}: set `labeler: auxlight.AgentLabels`, or remove the callback."
        )
    return cast(AuxiliaryClassifier, module), labeler


def check_step(module: AuxiliaryClassifier) -> None:
    """Say where the game's steps may be others than the main network's."""
    if type(module).training_step is not AuxiliaryClassifier.training_step:
        rank_zero_warn(
            f"{type(module).__name__} has a `training_step` of its own, which the steps of the agent's epochs do not "
            "take: override `step`, `task_losses` or `primary_losses` for another loss, of which both are made."
        )


def check_agent(factory: Any) -> None:
    """An algorithm that learns while it plays, where its class can be told before it is made."""
    while isinstance(factory, partial):
        factory = factory.func
    if not callable(factory):
        raise InputError(f"`agent` must be a class such as auxlight.rl.PaperPPO. Found {factory!r}.")
    if isinstance(factory, type) and issubclass(factory, BaseAlgorithm) and not issubclass(factory, OnPolicyAlgorithm):
        raise InputError(
            "`agent` of RLAuxCallback must make an on-policy algorithm of Stable-Baselines3 (PPO, A2C, …). "
            f"Found {factory.__name__}."
        )


def check_reward(reward: Any, module: AuxiliaryClassifier) -> None:
    """A reward that the module's step can be judged by."""
    if isinstance(reward, InfluenceReward) and type(module.combiner) is not WeightedSum:
        raise InputError(
            "InfluenceReward looks through the WeightedSum alone. Found the combiner "
            f"{type(module.combiner).__name__}: use ImprovementReward."
        )


def check_optimizers(trainer: L.Trainer) -> None:
    """Optimizers that step on one gradient."""
    if any(isinstance(optimizer, LBFGS) for optimizer in trainer.optimizers):
        raise InputError("An optimizer must step on one gradient. Found LBFGS, which needs several: choose SGD.")


def check_discount(agent: OnPolicyAlgorithm, reward: Reward) -> None:
    """Say so where rewards of single images are added up over images that have nothing to do with each other."""
    if isinstance(reward, InfluenceReward) and agent.gamma > 0:
        rank_zero_warn(
            "InfluenceReward tells each image what its own label did; in the next batch another image has its place, "
            f"whose reward a discount above 0 adds to it. Found gamma={agent.gamma:g} of the agent: set it to 0."
        )


def check_trainer(trainer: L.Trainer, kind: type) -> None:
    """The trainer's settings that the game honours."""
    check_whole_parameters("RLAuxCallback", trainer.strategy)
    if sum(isinstance(callback, kind) for callback in cast(Any, trainer).callbacks) > 1:
        raise InputError("One RLAuxCallback plays all of a module's agent epochs. Found several: keep one.")
    scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in cast(Any, trainer).callbacks)
    if trainer.accumulate_grad_batches != 1 or scheduled:
        found = (
            "GradientAccumulationScheduler"
            if scheduled
            else f"accumulate_grad_batches={trainer.accumulate_grad_batches}"
        )
        raise InputError(
            f"RLAuxCallback takes one step of the main network per batch. Found {found}: raise `batch_size` instead."
        )
    if trainer.precision in ("64-true", "bf16-true", "16-true"):
        raise InputError(
            f"RLAuxCallback's agent computes in float32. Found precision={trainer.precision}: set "
            "`trainer.precision` to 32 or bf16-mixed."
        )


def check_data(trainer: L.Trainer, reward: Reward, module: AuxiliaryClassifier) -> ImageDataModule:
    """The data module, if it has the images that the game draws."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, ImageDataModule):
        raise InputError(
            "RLAuxCallback draws images beside the training loop and needs an auxlight data module. "
            f"Found {type(data).__name__}: subclass auxlight.datamodules.ImageDataModule."
        )
    if data.num_labelled is not None:
        raise InputError(
            "RLAuxCallback's agent labels every training image by its primary class. Found "
            f"num_labelled={data.num_labelled}: leave it out."
        )
    if reward.held_out and not data.meta_split:
        raise InputError(
            "`held_out` of the reward needs held-out training images. Found meta_split=0: set `data.meta_split` to "
            "their share, such as 0.1."
        )
    if data.meta_split and not reward.held_out and module.combiner.judges_by != "meta":
        rank_zero_warn(
            f"`data.meta_split` holds {data.meta_split:.0%} of the training images out, but nothing uses them: set "
            "`held_out` of the reward, or meta_split to 0."
        )
    return data
