"""What the agent is rewarded for."""

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.functional import batch_entropy
from auxlight.rl.learner import Learner


class Reward(ABC):
    """Says what the labels of a batch were worth, from the main network before and after its step on them.

    An own reward is one class::

        class OwnLoss(Reward):                         # of the images that were labelled, after the step
            def after_step(self, learner, batch, target, evaluation, before):
                return torch.full((len(batch.primary),), -learner.primary_loss(batch))

    Args:
        batch_size: of the evaluation batches.
        held_out: evaluate on the images that the data module's `meta_split` holds out, rather than on training images
            as in the paper: then no label is rewarded for helping to fit an image by heart.
        entropy_weight: coefficient of H, the *negative* entropy of the batch's mean label (Eq. 3), which is taken off
            every reward. Positive, it rewards the use of many labels, as the authors' code does with 0.2.
        evaluation_steps: steps in a row that share an evaluation batch.

    Raises:
        InputError: sizes below 1, or a weight that is not finite.
    """

    def __init__(
        self,
        batch_size: int = 256,
        held_out: bool = False,
        entropy_weight: float = 0.0,
        evaluation_steps: int = 1,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("evaluation_steps", evaluation_steps)):
            if value < 1:
                raise InputError(f"`{name}` of the reward must be at least 1. Found {name}={value}.")
        if not math.isfinite(entropy_weight):
            raise InputError(f"`entropy_weight` of the reward must be finite. Found entropy_weight={entropy_weight}.")
        self.batch_size = batch_size
        self.held_out = held_out
        self.entropy_weight = entropy_weight
        self.evaluation_steps = evaluation_steps

    def start(self) -> None:  # noqa: B027  # most rewards remember nothing
        """The main network is another than after the last step: an episode begins, or it was trained elsewhere."""

    def before_step(self, learner: Learner, evaluation: Batch) -> Any:
        """Measure whatever `after_step` wants to know of the network before the step; by default nothing.

        Args:
            learner: the main network.
            evaluation: `batch_size` images.
        """
        return None

    @abstractmethod
    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: Any
    ) -> Tensor:
        """The reward (B,) of each image.

        Args:
            learner: after one step on `batch` and `target`.
            batch: the images that the agent labelled.
            target: what it said.
            evaluation: the images that `before_step` saw.
            before: what it returned.
        """

    def spread(self, target: AuxiliaryTarget) -> float:
        """−`entropy_weight` · H of a batch's labels."""
        return -self.entropy_weight * float(batch_entropy(target.probabilities))


class BatchReward(Reward):
    """The paper's reward (Eq. 4): after the step, minus the primary loss on random training images.

    r = −L_primary(θ⁺) − entropy_weight · H, the same for every image of the batch. Eq. 4 as printed has the other sign
    of H and no coefficient, which is ``entropy_weight=-1``.

    Args:
        batch_size: B_R.
        held_out: see `Reward`.
        entropy_weight: see `Reward`; the authors' code: 0.2.
    """

    def __init__(self, batch_size: int = 256, held_out: bool = False, entropy_weight: float = 0.2) -> None:
        super().__init__(batch_size, held_out, entropy_weight)

    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: Any
    ) -> Tensor:
        """See `Reward.after_step`."""
        return torch.full((len(batch.primary),), self.spread(target) - learner.primary_loss(evaluation))


class ImprovementReward(Reward):
    """How much the step lowered the primary loss on one and the same evaluation batch, times `scale`.

    r = scale · (L_primary(θ) − L_primary(θ⁺)) − entropy_weight · H, the same for every image of the batch. The choice
    of the evaluation images, most of the variance of the paper's reward, largely cancels, and so does the loss's
    downward trend.

    Args:
        batch_size: of the evaluation batches.
        held_out: see `Reward`.
        entropy_weight: see `Reward`.
        evaluation_steps: see `Reward`. The loss after one step is the loss before the next, so that n steps that build
            on each other take n + 1 evaluations, and their rewards add up to the improvement over all of them.
        scale: brings a single step's small difference to the size that PPO's critic and entropy term expect.
    """

    def __init__(
        self,
        batch_size: int = 256,
        held_out: bool = False,
        entropy_weight: float = 0.0,
        evaluation_steps: int = 10,
        scale: float = 100.0,
    ) -> None:
        super().__init__(batch_size, held_out, entropy_weight, evaluation_steps)
        if not 0 < scale < math.inf:
            raise InputError(f"`scale` of the reward must be positive and finite. Found scale={scale}.")
        self.scale = scale
        self._last: tuple[Batch, float] | None = None

    def start(self) -> None:
        """See `Reward.start`."""
        self._last = None

    def before_step(self, learner: Learner, evaluation: Batch) -> float:
        """The loss before the step."""
        known = self._last is not None and self._last[0].image is evaluation.image
        return self._last[1] if known else learner.primary_loss(evaluation)  # type: ignore[index]

    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: float
    ) -> Tensor:
        """See `Reward.after_step`."""
        after = learner.primary_loss(evaluation)
        self._last = (evaluation, after)
        return torch.full((len(batch.primary),), self.scale * (before - after) + self.spread(target))


class InfluenceReward(Reward):
    """Each image's own share of the improvement, to first order: what scaling up its auxiliary loss would have won.

    r_i = −w_i ∂L_primary(θ⁺)/∂w_i − entropy_weight · H, by one forward-mode pass (`auxlight.influence`), with w_i the
    weight of image i; the labels of the other images no longer blur it. Where the main optimizer is not SGD, or clips,
    the derivative is that of a plain SGD step at its rate. Of an own subclass it looks through `primary_losses` and the
    trunk, not through an overridden `features`, `task_losses` or `step`. Online its dropout masks are not the step's.

    An agent needs γ = 0 for it: in the next batch another image has the place of image i. L_primary(θ⁺) is that of
    training mode, as in MAXL's look-ahead, with batch norm by the evaluation batch; the other rewards measure in
    evaluation mode, with which it has little in common while batch norm's statistics are young.

    Args:
        batch_size: of the evaluation batches.
        held_out: see `Reward`.
        entropy_weight: see `Reward`.
        normalize: divide a batch's rewards by their root mean square (of each device), for they are of the size of a
            learning rate over a batch.
    """

    def __init__(
        self, batch_size: int = 256, held_out: bool = False, entropy_weight: float = 0.0, normalize: bool = True
    ) -> None:
        super().__init__(batch_size, held_out, entropy_weight)
        self.normalize = normalize

    def before_step(self, learner: Learner, evaluation: Batch) -> Any:
        """The network's position before the step."""
        if not hasattr(learner, "influence"):
            raise InputError(
                "InfluenceReward needs a learner that knows its `influence` (auxlight.rl.InfluenceLearner). "
                f"Found {type(learner).__name__} without: use ImprovementReward."
            )
        return learner.position()  # type: ignore[attr-defined]

    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: Any
    ) -> Tensor:
        """See `Reward.after_step`."""
        rewards: Tensor = learner.influence(before, batch, target, evaluation)  # type: ignore[attr-defined]
        if self.normalize:
            rewards = rewards / rewards.square().mean().sqrt().clamp_min(torch.finfo(rewards.dtype).tiny)
        return rewards + self.spread(target)
