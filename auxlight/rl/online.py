"""The game without a second pass: the agent explores in the main network's own epoch, and learns beside it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.labelers.actions import LabelActions
from auxlight.rl.game import check_finite
from auxlight.rl.learner import Learner
from auxlight.rl.observations import ImageObservation, as_tensors
from auxlight.rl.player import Player
from auxlight.rl.rewards import Reward


class Decision(NamedTuple):
    """What the agent saw of a batch and said, before the reward is known."""

    observed: Any
    actions: np.ndarray
    values: Tensor
    log_probabilities: Tensor
    target: AuxiliaryTarget


class OnlineGame:
    """One epoch of the main network in which its agent labels by chance, is rewarded, and learns after each rollout.

    Nothing is restored: the main network trains on explored labels. Around each of its steps call `before_step`,
    `choose` (from the labeler) and `after_step`.

    Args:
        player: the agent.
        learner: the main network.
        evaluation: endless batches for the reward.
        actions: what the agent may say.
        reward: what it is rewarded for.
        observation: what it sees of an image.
        steps: of the epoch.
    """

    def __init__(
        self,
        player: Player,
        learner: Learner,
        evaluation: Iterator[Batch],
        actions: LabelActions,
        reward: Reward,
        observation: ImageObservation,
        steps: int,
    ) -> None:
        self.player = player
        self.learner = learner
        self.evaluation = evaluation
        self.actions = actions
        self.reward = reward
        self.observation = observation
        self._rollouts = player.rollouts(steps)
        self._left = steps
        self._begins = True
        self._measured: tuple[Batch, Any] | None = None
        self._decision: Decision | None = None
        player.prepare(self._rollouts.pop(0))
        reward.start()

    @property
    def is_over(self) -> bool:
        """Whether the epoch has had all its steps."""
        return not self._left

    def before_step(self) -> None:
        """The main network is about to step."""
        evaluation = next(self.evaluation)
        self._measured = (evaluation, self.reward.before_step(self.learner, evaluation))

    @torch.no_grad()
    def choose(self, batch: Batch, seen: Tensor) -> AuxiliaryTarget:
        """Explored labels for a batch, of which the agent sees this."""
        observed = self.observation.arrays(seen, batch)
        policy = self.player.agent.policy
        with torch.autocast(seen.device.type, enabled=False):
            actions, values, log_probabilities = policy(as_tensors(observed, seen.device))
        target = self.actions.target(actions, batch.primary)
        self._decision = Decision(observed, actions.cpu().numpy(), values, log_probabilities, target)
        return target

    def after_step(self, batch: Batch) -> tuple[AuxiliaryTarget, Tensor]:
        """The main network has stepped: reward, and learn where a rollout is full.

        Returns:
            The batch's target, and the rewards (B,).
        """
        decision, measured = self._decision, self._measured
        if decision is None or measured is None:
            raise RuntimeError("The labeler was not asked for the labels of this step.")
        rewards = check_finite(self.reward.after_step(self.learner, batch, decision.target, *measured))
        agent, buffer = self.player.agent, self.player.agent.rollout_buffer
        if buffer.full:  # the values of this batch's images close the rollout before it
            self._learn(decision.values, over=False)
            self.player.prepare(self._rollouts.pop(0))
        buffer.add(
            decision.observed,
            decision.actions,
            rewards.float().cpu().numpy(),
            np.full(len(rewards), self._begins),
            decision.values,
            decision.log_probabilities,
        )
        agent.num_timesteps += len(rewards)
        self._begins = False
        self._left -= 1
        if not self._left:
            self._learn(decision.values, over=True)
        return decision.target, rewards

    def _learn(self, last_values: Tensor, over: bool) -> None:
        agent = self.player.agent
        agent.rollout_buffer.compute_returns_and_advantage(last_values, np.full(agent.n_envs, over))
        agent.policy.requires_grad_(True)
        with torch.enable_grad(), self.player.averaged_gradients():
            agent.train()
        agent.policy.requires_grad_(False)
        agent.policy.optimizer.zero_grad()
        agent.policy.set_training_mode(False)
        agent.logger.dump()
