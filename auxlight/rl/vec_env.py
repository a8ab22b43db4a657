"""The labelling game, one batch a step: its images are environments that share one main network."""

from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.rl.game import LabellingGame, to_actions
from auxlight.rl.observations import ImageObservation, Observed, one_of


class AuxTaskVecEnv(VecEnv):
    """RL-AUX's game for Stable-Baselines3, the B images of a batch played at once.

    An observation is one image, an action its auxiliary label (and weight level). When all B are labelled the main
    network takes one step on them, and each image has its reward. Within a batch no observation depends on an action,
    so labelling its images together is the paper's game (`AuxTaskEnv`), with γ counted in batches.

    Args:
        game: what is played.
        observation: what the agent sees of an image.
        num_envs: B.

    Raises:
        InputError: a batch of another size or shape.
    """

    def __init__(self, game: LabellingGame, observation: ImageObservation, num_envs: int) -> None:
        self.game = game
        self.observation = observation
        self.render_mode = None
        super().__init__(num_envs, observation.space, spaces.MultiDiscrete(list(game.actions.sizes)))
        self._seen: Observed | None = None
        self._chosen = np.zeros((num_envs, len(game.actions.sizes)), dtype=np.int64)

    def reset(self) -> Any:
        """Back to the canonical network and the first batch of an episode."""
        self._seen = self._observe(self.game.start())
        return self._seen

    def step_async(self, actions: np.ndarray) -> None:
        """Take the actions (B, parts)."""
        self._chosen = actions

    def step_wait(self) -> VecEnvStepReturn:
        """One main step on the labelled batch; the next batch, or after the last one a new episode."""
        seen = self._seen
        if seen is None:
            raise InputError("`reset` must be called before `step`.")
        labelled = self.game.label(to_actions(self._chosen, self.num_envs))
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if labelled.over:
            for number, info in enumerate(infos):
                info["terminal_observation"] = one_of(seen, number)
        following = self.game.start() if labelled.over or self.game.batch is None else self.game.batch
        self._seen = self._observe(following)
        rewards = labelled.rewards.float().cpu().numpy()
        return self._seen, rewards, np.full(self.num_envs, labelled.over), infos  # type: ignore[return-value]

    def _observe(self, batch: Batch) -> Observed:
        if len(batch.image) != self.num_envs:
            raise InputError(
                f"Every batch of the game must hold {self.num_envs} images. Found {len(batch.image)}: drop the "
                "incomplete last batch."
            )
        return self.observation(self.game.learner, batch)

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
