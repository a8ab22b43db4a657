"""The labelling game as the paper describes it: one image a step."""

from typing import Any, cast

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.rl.game import LabellingGame, to_actions
from auxlight.rl.observations import ImageObservation, Observed, one_of


class AuxTaskEnv(gym.Env[Any, np.ndarray]):
    """RL-AUX's environment: an observation is one image, an action its auxiliary label (and weight level).

    After the last image of a batch the main network takes one step on it, and that image's step brings the reward of
    the batch: the mean of its images', which ``info["rewards"]`` holds one by one. All other steps bring 0. An episode
    is one pass over the training images. `AuxTaskVecEnv` plays the same game a batch a step, and faster.

    Args:
        game: what is played.
        observation: what the agent sees of an image.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  # gymnasium's own way

    def __init__(self, game: LabellingGame, observation: ImageObservation) -> None:
        self.game = game
        self.observation = observation
        self.observation_space = observation.space
        self.action_space = spaces.MultiDiscrete(list(game.actions.sizes))
        self._seen: Observed | None = None
        self._chosen: list[np.ndarray] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Back to the canonical network and the first image of a new pass. The game itself draws nothing by chance."""
        super().reset(seed=seed, options=options)
        self._seen = self.observation(self.game.learner, self.game.start())
        self._chosen = []
        return one_of(self._seen, 0), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Label the present image."""
        seen, batch = self._seen, self.game.batch
        if seen is None or batch is None:
            raise InputError("`reset` must be called before `step`.")
        self._chosen.append(np.asarray(action))
        if len(self._chosen) < len(batch.image):
            return one_of(seen, len(self._chosen)), 0.0, False, False, {}
        labelled = self.game.label(to_actions(np.stack(self._chosen), len(batch.image)))
        self._chosen = []
        info = {"rewards": labelled.rewards.cpu().numpy()}
        last = one_of(seen, len(batch.image) - 1)
        self._seen = None
        if not labelled.over:
            self._seen = self.observation(self.game.learner, cast(Batch, self.game.batch))
            last = one_of(self._seen, 0)
        return last, float(labelled.rewards.mean()), labelled.over, False, info
