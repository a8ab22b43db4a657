"""What a game in a fit is made of."""

import warnings
from collections.abc import Iterator
from itertools import count, repeat
from typing import Literal

import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from auxlight.batch import Batch
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.labelers.agent import AgentLabels
from auxlight.rl.agent import AgentFactory
from auxlight.rl.observations import FeatureObservation, ImageObservation, SnapshotObservation
from auxlight.rl.policy import AgentPolicy
from auxlight.rl.rewards import Reward
from auxlight.seeding import derive_seed, global_seed, isolated_rng


def evaluation_batches(data: ImageDataModule, reward: Reward, name: str) -> Iterator[Batch]:
    """Random images for the reward, endlessly, each batch as often as it wants; `name` tells streams apart."""
    split: Literal["meta", "train"] = "meta" if reward.held_out else "train"
    for passes in count():
        for batch in data.training_batches(f"reward {name}", passes, reward.batch_size, split):
            yield from repeat(batch, reward.evaluation_steps)


def observation_of(data: ImageDataModule, labeler: AgentLabels) -> ImageObservation:
    """What the labeler's network sees."""
    num_primary = labeler.hierarchy.num_primary if labeler.sees_primary else None
    if labeler.takes_snapshots:
        return SnapshotObservation(labeler.snapshot, labeler.main_feature_dim, num_primary)
    if labeler.shared_trunk:
        return FeatureObservation(labeler.main_feature_dim, num_primary)
    return ImageObservation(data.image_shape, num_primary)


def make_agent(factory: AgentFactory, labeler: AgentLabels, env: VecEnv, device: torch.device) -> OnPolicyAlgorithm:
    """An algorithm around the labeler's network.

    Raises:
        InputError: arguments that it does not take, or another kind of algorithm.
    """
    # Making a policy draws layers that it then drops.
    with isolated_rng(derive_seed(global_seed(), "make agent")), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You have specified a mini-batch size")  # `Player` says it
        try:
            agent = factory(AgentPolicy.around(labeler.network), env, device=device)  # type: ignore[call-arg]
        except AttributeError as error:
            raise InputError(
                "`agent` must be an algorithm that takes a common actor-critic policy, such as PPO, A2C or TRPO. "
                f"Found one that does not: {error}."
            ) from error
        except (ValueError, AssertionError, TypeError) as error:  # how SB3 and torch refuse a value
            raise InputError(f"`agent` does not take its arguments: {' '.join(str(error).split())}") from error
    if not isinstance(agent, OnPolicyAlgorithm):
        raise InputError(
            "`agent` of RLAuxCallback must make an on-policy algorithm of Stable-Baselines3 (PPO, A2C, …). "
            f"Found {type(agent).__name__}."
        )
    return agent
