"""An oracle for the agent."""

from typing import Any

from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.rl.learner import Learner
from auxlight.rl.rewards import Reward


class AgreementReward(Reward):
    """A control: the agent is told whether its label is the human one.

    r_i = t_{i h_i} − entropy_weight · H, with t the target and h the human label; the first term is 0 where an image
    has none. No noise, no doubt whose label it was: how far an agent gets, with its schedule, when the reward is clear.
    Other labels, which follow what it sees, may be easier.

    Args:
        entropy_weight: see `Reward`.
    """

    def __init__(self, entropy_weight: float = 0.0) -> None:
        super().__init__(1, False, entropy_weight)

    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: Any
    ) -> Tensor:
        """See `Reward.after_step`.

        Raises:
            InputError: data without human labels.
        """
        if batch.auxiliary is None:
            raise InputError("AgreementReward needs human sub-labels. Found data without: use another reward.")
        agreed = target.probabilities.gather(1, batch.auxiliary.clamp_min(0)[:, None]).squeeze(1)
        return agreed * (batch.auxiliary >= 0) + self.spread(target)
