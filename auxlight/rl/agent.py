"""Making an agent and letting it play."""

from collections.abc import Callable
from numbers import Real
from typing import Any

from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
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
            if not size > 0:
                raise InputError(f"`{name}` of the agent must be positive. Found {name}={size}.")
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


class EpochMeans(KVWriter):
    """An SB3 log writer that keeps the mean of each number until it is read."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """Take the numbers of one dump; times, and what SB3 itself keeps out of TensorBoard (counters), stay out."""
        for key, value in key_values.items():
            excluded = key.startswith("time/") or "tensorboard" in (key_excluded.get(key) or ())
            if isinstance(value, Real) and not excluded:
                self.values.setdefault(key.removeprefix("train/").removeprefix("rollout/"), []).append(float(value))

    def close(self) -> None:
        """Nothing to close."""

    def read(self) -> dict[str, float]:
        """Means since the last reading."""
        means = {key: sum(values) / len(values) for key, values in self.values.items()}
        self.values.clear()
        return means


class Player:
    """An agent that plays whole episodes, however its rollout length divides them.

    Args:
        agent: an on-policy algorithm over the environment.

    Raises:
        InputError: a learning rate or clip range that is scheduled.
    """

    def __init__(self, agent: OnPolicyAlgorithm) -> None:
        for name in ("lr_schedule", "clip_range", "clip_range_vf"):
            schedule = getattr(agent, name, None)
            if callable(schedule) and schedule(1.0) != schedule(0.0):
                raise InputError(
                    f"`agent` must have constant rates: SB3 would run a schedule to its end in every epoch. Found "
                    f"{name} from {schedule(1.0)} to {schedule(0.0)}."
                )
        self.agent = agent
        self.max_rollout = agent.n_steps
        self.writer = EpochMeans()
        agent.set_logger(Logger(folder=None, output_formats=[self.writer]))

    def play(self, env: VecEnv, steps: int, callback: BaseCallback | None = None) -> dict[str, float]:
        """Learn from exactly `steps` vector steps, starting with a reset.

        SB3 rounds up to whole rollouts, which would play past the episode's end. So the steps are dealt out in equal
        rollouts, ±1, of at most the length asked for.

        Returns:
            Means of what the algorithm logs (losses, KL, entropy, explained variance).
        """
        self.agent.set_env(env)  # forces a reset
        rollouts = -(-steps // self.max_rollout)
        length, longer = divmod(steps, rollouts)
        for n_steps, count in ((length + 1, longer), (length, rollouts - longer)):
            if count:
                self.agent.n_steps = n_steps
                self.agent.rollout_buffer.buffer_size = n_steps
                self.agent.rollout_buffer.reset()
                self.agent.learn(count * n_steps * env.num_envs, callback, reset_num_timesteps=False)
        self.agent.policy.set_training_mode(False)
        self.agent.logger.dump()  # what the last update recorded
        return self.writer.read()

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and counter as plain values and tensors; the policy's weights belong to the module."""
        return {
            "optimizer": self.agent.policy.optimizer.state_dict(),
            "num_timesteps": self.agent.num_timesteps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state."""
        self.agent.policy.optimizer.load_state_dict(state["optimizer"])
        self.agent.num_timesteps = state["num_timesteps"]
