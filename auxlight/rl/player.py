"""Letting an agent play."""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real
from typing import Any, cast

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from stable_baselines3 import A2C, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import KVWriter, Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch import distributed as dist

from auxlight.errors import InputError


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
    """An agent that plays whole passes, however its rollout length divides them.

    SB3 rounds up to whole rollouts, which would play past the end of a pass. So its steps are dealt out in equal
    rollouts, ±1, of at most the length asked for.

    Args:
        agent: an on-policy algorithm over the environment.
        devices: on which the agent plays at once, each on images of its own; its gradients are averaged.

    Raises:
        InputError: a learning rate or clip range that is scheduled; on several devices an algorithm that does not learn
            by gradients alone.
    """

    def __init__(self, agent: OnPolicyAlgorithm, devices: int = 1) -> None:
        for name in ("lr_schedule", "clip_range", "clip_range_vf"):
            schedule = getattr(agent, name, None)
            if callable(schedule) and schedule(1.0) != schedule(0.0):
                raise InputError(
                    f"`agent` must have constant rates: SB3 would run a schedule to its end in every epoch. Found "
                    f"{name} from {schedule(1.0)} to {schedule(0.0)}."
                )
        minibatch = getattr(agent, "batch_size", None)
        if minibatch and agent.n_envs % minibatch and minibatch % agent.n_envs:
            rank_zero_warn(
                "`batch_size` of the agent should divide the main network's, or be a multiple of it. Found "
                f"batch_size={minibatch} and {agent.n_envs}: the last minibatch of a pass over a rollout is smaller."
            )
        if devices > 1 and not isinstance(agent, PPO | A2C):
            raise InputError(
                "On several devices an agent must learn by gradients, which are averaged: PPO or A2C. "
                f"Found {type(agent).__name__} on {devices}: set `trainer.devices: 1`."
            )
        if devices > 1 and getattr(agent, "target_kl", None) is not None:
            raise InputError(
                "On several devices an agent must not stop early, on each at another step. Found "
                f"target_kl={agent.target_kl}: leave it out."  # type: ignore[attr-defined]
            )
        self.agent = agent
        self.devices = devices
        self.max_rollout = agent.n_steps
        self.writer = EpochMeans()
        self._announced = False
        agent.set_logger(Logger(folder=None, output_formats=[self.writer]))

    def rollouts(self, steps: int) -> list[int]:
        """Lengths of the rollouts that `steps` are dealt out in."""
        count = -(-steps // self.max_rollout)
        length, longer = divmod(steps, count)
        lengths = [length + 1] * longer + [length] * (count - longer)
        if set(lengths) != {self.max_rollout} and not self._announced:
            range_of = " or ".join(map(str, sorted(set(lengths))))
            rank_zero_info(
                f"The agent plays {steps} steps an epoch, in rollouts of {range_of} steps rather than of "
                f"n_steps={self.max_rollout}."
            )
        self._announced = True
        return lengths

    def prepare(self, length: int) -> None:
        """Make room for a rollout of this length."""
        self.agent.n_steps = length
        self.agent.rollout_buffer.buffer_size = length
        self.agent.rollout_buffer.reset()

    def play(self, env: VecEnv, steps: int, callback: BaseCallback | None = None) -> dict[str, float]:
        """Learn from exactly `steps` vector steps, starting with a reset.

        Returns:
            Means of what the algorithm logs (losses, KL, entropy, explained variance).
        """
        self.agent.set_env(env)  # forces a reset
        with self.averaged_gradients():
            for length in self.rollouts(steps):
                self.prepare(length)
                self.agent.learn(length * env.num_envs, callback, log_interval=1, reset_num_timesteps=False)
        return self.report()

    def report(self) -> dict[str, float]:
        """What the algorithm has logged since the last report."""
        self.agent.policy.set_training_mode(False)
        self.agent.logger.dump()  # what the last update recorded
        return self.writer.read()

    @contextmanager
    def averaged_gradients(self) -> Iterator[None]:
        """Inside this block every backward pass of the policy ends with the mean gradient of all devices."""

        def average(parameter: Tensor) -> None:
            gradient = cast(Tensor, parameter.grad)
            dist.all_reduce(gradient)
            gradient /= self.devices

        parameters = self.agent.policy.parameters() if self.devices > 1 else ()
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        hooks = [parameter.register_post_accumulate_grad_hook(average) for parameter in learning]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and counter as plain values and tensors; the policy's weights belong to the module."""
        return {
            "agent": type(self.agent).__name__,
            "optimizer": self.agent.policy.optimizer.state_dict(),
            "num_timesteps": self.agent.num_timesteps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a saved state.

        Raises:
            InputError: the state of another algorithm.
        """
        if state["agent"] != type(self.agent).__name__:
            raise InputError(
                f"`agent` must be the algorithm that the checkpoint holds. Found {type(self.agent).__name__} instead "
                f"of {state['agent']}: use the run's own config, or start without the checkpoint."
            )
        self.agent.policy.optimizer.load_state_dict(state["optimizer"])
        self.agent.num_timesteps = state["num_timesteps"]
