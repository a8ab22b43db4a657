"""Classification against labels that somebody gives: a human, an agent, a network, chance."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.functional import focal_loss
from auxlight.labelers.base import Labeler
from auxlight.tasks.base import AuxiliaryTask


class LabelledTask(AuxiliaryTask):
    """Focal loss of the head's K logits against the labeler's target (RL-AUX, MAXL).

    The target is a softmax masked to the block of the primary class (Eq. 5 and 6); the head itself is not masked.

    Args:
        head: (B, D) → (B, K).
        labeler: already bound to the hierarchy.
        focal_gamma: γ of the focal loss.
    """

    def __init__(self, head: nn.Module, labeler: Labeler, focal_gamma: float) -> None:
        super().__init__()
        self.head = head
        self.labeler = labeler
        self.focal_gamma = focal_gamma
        self._given: AuxiliaryTarget | None = None

    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `AuxiliaryTask.forward`."""
        target = self.labeler(batch, features) if self._given is None else self._given
        return focal_loss(self.head(features), target.probabilities, self.focal_gamma), target.weight

    @contextmanager
    def given(self, target: AuxiliaryTarget) -> Iterator[None]:
        """Train on `target` inside this block instead of asking the labeler: labels at hand, or explored ones."""
        outer, self._given = self._given, target
        try:
            yield
        finally:
            self._given = outer
