"""What the game needs of the network that the agent teaches."""

from typing import Protocol

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
