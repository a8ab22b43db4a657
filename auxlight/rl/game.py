"""The labelling game of RL-AUX, whole batches at a time; both environments are views of it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import DivergedError, InputError
from auxlight.labelers.actions import LabelActions
from auxlight.rl.learner import Learner
from auxlight.rl.rewards import Reward


class Labelled(NamedTuple):
    """A batch that was labelled: actions (B, parts), targets, rewards (B,), and whether the episode ended with it."""

    batch: Batch
    chosen: Tensor
    target: AuxiliaryTarget
    rewards: Tensor
    over: bool


class LabellingGame:
    """One pass over the training batches: label a batch, let the main network take one step on it, be rewarded.

    Every episode starts at the canonical network. Between its first step and the next `start` the main network is
    wherever the labels have led it.

    Args:
        learner: the main network; its snapshot is the canonical one.
        episode: makes the batches of the next pass.
        evaluation: endless batches for the reward.
        actions: what the agent may say.
        reward: what it is rewarded for.
        reset: "epoch" (paper) lets the steps of a pass build on each other. "batch" returns to the canonical network
            before every step (the paper's Appendix A.2): each batch is an episode, rewarded for its own step alone.
        watch: told of each labelled batch.

    Attributes:
        batch: to be labelled next; None before `start` and after the last batch.

    Raises:
        InputError: a pass without batches, batches of unequal size, another reset, rewards that are not finite.
    """

    def __init__(
        self,
        learner: Learner,
        episode: Callable[[], Iterable[Batch]],
        evaluation: Iterator[Batch],
        actions: LabelActions,
        reward: Reward,
        reset: Literal["epoch", "batch"] = "epoch",
        watch: Callable[[Labelled], None] | None = None,
    ) -> None:
        check_reset(reset)
        self.learner = learner
        self.episode = episode
        self.evaluation = evaluation
        self.actions = actions
        self.reward = reward
        self.reset = reset
        self.batch: Batch | None = None
        self.watch = watch
        self._batches: Iterator[Batch] = iter(())
        self._size = 0

    def start(self) -> Batch:
        """An episode begins at the canonical network: a new pass, or by batch the next batch."""
        self.learner.restore()
        self.reward.start()
        if self.reset == "epoch" or self.batch is None:
            self._batches = iter(self.episode())
            self._size = 0
            self._advance()
        if self.batch is None:
            raise InputError("An episode must hold at least one batch. Found none: check the training data.")
        return self.batch

    def label(self, chosen: Tensor) -> Labelled:
        """One main step on the batch under these actions, (B, parts) int64; then the next batch is up."""
        batch = self.batch
        if batch is None:
            raise InputError("`reset` must be called before `step`.")
        chosen = chosen.to(batch.primary.device)
        target = self.actions.target(chosen, batch.primary)
        evaluation = next(self.evaluation)
        before = self.reward.before_step(self.learner, evaluation)
        self.learner.train_on(batch, target)
        rewards = check_rewards(self.reward.after_step(self.learner, batch, target, evaluation, before), batch)
        self._advance()
        labelled = Labelled(batch, chosen, target, rewards, self.batch is None or self.reset == "batch")
        if self.watch is not None:
            self.watch(labelled)
        return labelled

    def _advance(self) -> None:
        self.batch = next(self._batches, None)
        size = 0 if self.batch is None else len(self.batch.image)
        self._size = self._size or size
        if self.batch is not None and size != self._size:
            raise InputError(
                f"Every batch of a game must hold as many images as the first, {self._size}. Found {size}: drop the "
                "incomplete last batch."
            )


def check_reset(reset: str) -> None:
    """The two choices."""
    if reset not in ("epoch", "batch"):
        raise InputError(f"`reset` must be 'epoch' or 'batch'. Found reset={reset!r}.")


def check_rewards(rewards: object, batch: Batch) -> Tensor:
    """The rewards, if there is a number for each image."""
    size = len(batch.image)
    if not isinstance(rewards, Tensor) or rewards.shape != (size,):
        found = f"a tensor of shape {tuple(rewards.shape)}" if isinstance(rewards, Tensor) else type(rewards).__name__
        raise InputError(f"`after_step` of the reward must return a tensor of shape ({size},). Found {found}.")
    if not rewards.isfinite().all():
        raise DivergedError(
            "The agent's rewards must be finite: the main network's training diverged. Found "
            f"{float(rewards[~rewards.isfinite()][0])}: lower the learning rate, `aux_weight` or the highest weight."
        )
    return rewards.detach()


def to_actions(chosen: object, batch_size: int) -> Tensor:
    """Actions of an environment's users as (B, parts) int64."""
    return torch.as_tensor(chosen, dtype=torch.int64).reshape(batch_size, -1)
