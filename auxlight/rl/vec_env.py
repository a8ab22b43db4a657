"""The labelling game, one batch a step: its images are environments that share one main network."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvObs, VecEnvStepReturn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.labelers.actions import LabelActions
from auxlight.rl.learner import Learner
from auxlight.rl.rewards import Reward


class AuxTaskVecEnv(VecEnv):
    """RL-AUX's game for Stable-Baselines3, the B images of a batch played at once.

    An observation is one image, without its label; an action is its auxiliary label (and weight level). When all B
    are labelled the main network takes one step on them, and the reward follows. An episode is one pass over the
    training batches; it starts at the canonical network. Within a batch no observation depends on an action, so
    labelling its images together is the paper's game, one image at a time, with γ counted in batches.

    Args:
        learner: the main network.
        episode: makes the batches of the next episode, each of `num_envs` images.
        evaluation: endless batches for the reward.
        actions: what the agent may say.
        reward: what it is rewarded for.
        num_envs: B.
        image_shape: (C, H, W).

    Attributes:
        mean_reward: per step and image, of the last finished episode.

    Raises:
        InputError: a batch of another size, or an episode without batches.
    """

    def __init__(
        self,
        learner: Learner,
        episode: Callable[[], Iterable[Batch]],
        evaluation: Iterator[Batch],
        actions: LabelActions,
        reward: Reward,
        num_envs: int,
        image_shape: Sequence[int],
    ) -> None:
        self.learner = learner
        self.episode = episode
        self.evaluation = evaluation
        self.actions = actions
        self.reward = reward
        self.render_mode = None
        observation_space = spaces.Box(-np.inf, np.inf, tuple(image_shape), np.float32)
        super().__init__(num_envs, observation_space, spaces.MultiDiscrete(list(actions.sizes)))
        self._batches: Iterator[Batch] = iter(())
        self._batch: Batch | None = None
        self._chosen = np.zeros((num_envs, len(actions.sizes)), dtype=np.int64)
        self._rewards: list[float] = []
        self.mean_reward = float("nan")

    def reset(self) -> VecEnvObs:
        """Back to the canonical network and the first batch of a new episode."""
        self.learner.restore()
        self._batches = iter(self.episode())
        self._batch = next(self._batches, None)
        if self._batch is None:
            raise InputError("An episode must hold at least one batch. Found none: check the training data.")
        self._rewards = []
        return self._observe(self._batch)

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions (B, parts)."""
        self._chosen = np.asarray(actions, dtype=np.int64).reshape(self.num_envs, -1)

    def step_wait(self) -> VecEnvStepReturn:
        """One main step on the labelled batch; the next batch, or after the last one a new episode."""
        batch = self._batch
        if batch is None:
            raise InputError("`reset` must be called before `step`.")
        chosen = torch.from_numpy(self._chosen).to(batch.primary.device)
        target = self.actions.target(chosen, batch.primary)
        rewards = self.reward(self.learner, batch, target, self.evaluation).cpu().numpy().astype(np.float32)
        if not np.isfinite(rewards).all():
            raise InputError(
                "The agent's rewards must be finite: the main network's training diverged. Found "
                f"{rewards[~np.isfinite(rewards)][0]}: lower the learning rate, `aux_weight` or the agent's weights."
            )
        self._rewards.append(float(rewards.mean()))
        self._batch = next(self._batches, None)
        if self._batch is not None:
            return self._observe(self._batch), rewards, np.zeros(self.num_envs, bool), self._infos()
        infos = self._infos()
        last = self._observe(batch)
        self.mean_reward = float(np.mean(self._rewards))
        for i, info in enumerate(infos):
            info["terminal_observation"] = last[i]
        return self.reset(), rewards, np.ones(self.num_envs, bool), infos

    def _infos(self) -> list[dict[str, Any]]:
        return [{} for _ in range(self.num_envs)]

    def _observe(self, batch: Batch) -> np.ndarray:
        image = batch.image
        if image.shape != (self.num_envs, *self.observation_space.shape):  # type: ignore[misc]
            raise InputError(
                f"Every batch of the game must hold {self.num_envs} images of shape {self.observation_space.shape}. "
                f"Found {len(image)} of shape {tuple(image.shape[1:])}: drop the incomplete last batch."
            )
        return image.detach().float().contiguous().cpu().numpy()

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The attribute, once per environment asked for: they are one object."""
        return [getattr(self, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the attribute for all environments: they are one object."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any) -> list[Any]:
        """Call the method once; its result for every environment asked for."""
        result = getattr(self, method_name)(*args, **kwargs)
        return [result] * len(list(self._get_indices(indices)))

    def env_is_wrapped(self, wrapper_class: type, indices: VecEnvIndices = None) -> list[bool]:
        """No environment is wrapped."""
        return [False] * len(list(self._get_indices(indices)))
