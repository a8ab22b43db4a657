"""The game without a second pass: the agent explores in the main network's own epoch, and learns beside it."""

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.labelers.actions import LabelActions
from auxlight.rl.game import Labelled, check_rewards
from auxlight.rl.learner import Learner
from auxlight.rl.observations import ImageObservation, as_tensors
from auxlight.rl.player import Player
from auxlight.rl.policy import AgentPolicy
from auxlight.rl.rewards import Reward


class Decision(NamedTuple):
    """What the agent saw of a batch and said, before the reward is known."""

    observed: Any
    actions: Tensor
    values: Tensor
    log_probabilities: Tensor
    target: AuxiliaryTarget


class OnlineGame:
    """One epoch of the main network in which its agent labels by chance, is rewarded, and learns after each rollout.

    Nothing is restored: the main network trains on explored labels. Around each of its steps call `before_step`,
    `choose` (from the labeler) and `after_step`; before one that it does not explore, `skip_step`.

    Args:
        player: the agent.
        learner: the main network.
        evaluation: endless batches for the reward.
        actions: what the agent may say.
        reward: what it is rewarded for.
        observation: what it sees of an image.
        steps: of the epoch, those that it explores.
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

    def skip_step(self) -> None:
        """The main network is about to step without the agent's exploring."""
        self.reward.start()

    def before_step(self) -> None:
        """The main network is about to step."""
        evaluation = next(self.evaluation)
        self._measured = (evaluation, self.reward.before_step(self.learner, evaluation))

    @torch.no_grad()
    def choose(self, batch: Batch, seen: Tensor) -> AuxiliaryTarget:
        """Explored labels for a batch, of which the agent sees this; a full rollout is learned from first."""
        observed = self.observation.arrays(seen, batch)
        policy = self.player.agent.policy
        with torch.autocast(seen.device.type, enabled=False):
            if self.player.agent.rollout_buffer.full:
                self._learn(policy.predict_values(as_tensors(observed, seen.device)))
                self.player.prepare(self._rollouts.pop(0))
            actions, values, log_probabilities = policy(as_tensors(observed, seen.device))
        target = self.actions.target(actions, batch.primary)
        self._decision = Decision(observed, actions, values, log_probabilities, target)
        return target

    def after_step(self, batch: Batch) -> Labelled:
        """The main network has stepped: reward; after the epoch's last step, learn."""
        decision, measured = self._decision, self._measured
        if decision is None or measured is None:
            raise RuntimeError("The labeler was not asked for the labels of this step.")
        rewards = check_rewards(self.reward.after_step(self.learner, batch, decision.target, *measured), batch)
        agent = self.player.agent
        agent.rollout_buffer.add(
            decision.observed,
            decision.actions.cpu().numpy(),
            rewards.float().cpu().numpy(),
            np.full(len(rewards), self._begins),
            decision.values,
            decision.log_probabilities,
        )
        agent.num_timesteps += len(rewards)
        self._begins = False
        self._left -= 1
        if self.is_over:
            # The network goes on, so that nothing ends here; the next images are drawn as these were.
            self._learn(decision.values)
        return Labelled(batch, decision.actions, decision.target, rewards, self.is_over)

    def _learn(self, next_values: Tensor) -> None:
        agent = self.player.agent
        agent.rollout_buffer.compute_returns_and_advantage(next_values, np.zeros(agent.n_envs, dtype=bool))
        try:
            with (
                torch.enable_grad(),
                cast(AgentPolicy, agent.policy).network.learns(),
                self.player.averaged_gradients(),
            ):
                agent.train()
        finally:
            agent.policy.set_training_mode(False)
        agent.logger.dump()
