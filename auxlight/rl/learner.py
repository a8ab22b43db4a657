"""What the game needs of the network that the agent teaches."""

from typing import Any, Protocol

from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch


class Learner(Protocol):
    """A main network in training. The game knows nothing else of task, network, optimizer or hardware."""

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """One optimizer step on the batch's primary labels and this auxiliary target."""

    def primary_loss(self, batch: Batch) -> float:
        """Mean primary loss of a batch in evaluation mode; leaves no trace in the network."""

    def snapshot(self) -> None:
        """Remember the present state: the canonical network."""

    def restore(self) -> None:
        """Return to the snapshot, bit for bit."""


class FeatureLearner(Learner, Protocol):
    """A main network whose features the agent sees (`FeatureObservation`)."""

    def features(self, batch: Batch) -> Tensor:
        """Features (B, D) of a batch in training mode; a `train_on` the same batch may go on from them."""


class InfluenceLearner(Learner, Protocol):
    """A main network that knows each image's part in what a step did (`InfluenceReward`)."""

    def position(self) -> Any:
        """Whatever `influence` needs to know of the network before a step."""

    def influence(self, before: Any, batch: Batch, target: AuxiliaryTarget, evaluation: Batch) -> Tensor:
        """What each image's auxiliary loss did for the primary loss of other images.

        Args:
            before: the position before the step.
            batch: what the step was on.
            target: its labels and weights.
            evaluation: the images by which the step is judged.

        Returns:
            (B,), −w_i ∂L_primary(θ⁺)/∂w_i.
        """
