"""Making an agent."""

import math
from collections.abc import Callable
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from auxlight.errors import InputError

# (policy, environment, device=…) → agent. SB3's algorithms are such callables.
AgentFactory = Callable[[type[ActorCriticPolicy], VecEnv], OnPolicyAlgorithm]


class PaperPPO(PPO):
    """PPO with RL-AUX's hyperparameters: learning rate 3e-4, entropy 0.01, 10 passes over each rollout.

    Args:
        policy: given by the callback.
        env: given by the callback.
        learning_rate: of Adam.
        n_steps: batches in a rollout, at most: 20 × 100 images are SB3's default of 2048, rounded to whole batches.
        batch_size: images in a minibatch; by default as many as in the main network's batch.
        n_epochs: passes over each rollout.
        gamma: discount per batch.
        gae_lambda: λ of generalised advantage estimation.
        clip_range: of the probability ratio.
        ent_coef: weight of the policy's entropy.
        vf_coef: weight of the value loss.
        max_grad_norm: gradient clipping.
        target_kl: stop a rollout's updates beyond this divergence.
        device: given by the callback: the main network's.
    """

    def __init__(
        self,
        policy: type[ActorCriticPolicy],
        env: VecEnv,
        learning_rate: float = 3e-4,
        n_steps: int = 20,
        batch_size: int | None = None,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: float = 0.2,
        ent_coef: float = 0.01,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        target_kl: float | None = None,
        device: str = "auto",
    ) -> None:
        minibatch = env.num_envs if batch_size is None else batch_size
        for name, value, least in (("n_steps", n_steps, 1), ("n_epochs", n_epochs, 1), ("batch_size", minibatch, 2)):
            if value < least:
                raise InputError(f"`{name}` of the agent must be at least {least}. Found {name}={value}.")
        for name, share in (("gamma", gamma), ("gae_lambda", gae_lambda)):
            if not 0 <= share <= 1:
                raise InputError(f"`{name}` of the agent must lie between 0 and 1. Found {name}={share}.")
        for name, size in (
            ("learning_rate", learning_rate),
            ("clip_range", clip_range),
            ("max_grad_norm", max_grad_norm),
        ):
            if not 0 < size < math.inf:
                raise InputError(f"`{name}` of the agent must be positive and finite. Found {name}={size}.")
        for name, weight in (("ent_coef", ent_coef), ("vf_coef", vf_coef)):
            if not math.isfinite(weight):
                raise InputError(f"`{name}` of the agent must be finite. Found {name}={weight}.")
        super().__init__(
            policy,
            env,
            learning_rate=learning_rate,
            n_steps=n_steps,
            batch_size=minibatch,
            n_epochs=n_epochs,
            gamma=gamma,
            gae_lambda=gae_lambda,
            clip_range=clip_range,
            ent_coef=ent_coef,
            vf_coef=vf_coef,
            max_grad_norm=max_grad_norm,
            target_kl=target_kl,
            device=device,
        )

    @classmethod
    def load(cls, *arguments: Any, **options: Any) -> PPO:  # type: ignore[override]
        """Of an exported agent: see `PPO.load`, which makes a `PPO`."""
        return PPO.load(*arguments, **options)
