"""Classification against labels that somebody gives: a human, an agent, a network, chance."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.functional import focal_loss
from auxlight.labelers.base import Labeler
from auxlight.networks.heads import Head
from auxlight.tasks.base import AuxiliaryTask, TaskPlace


class LabelledTask(AuxiliaryTask):
    """Focal loss of the head's K logits against the labeler's target (RL-AUX, MAXL).

    The target is a softmax masked to the block of the primary class (Eq. 5 and 6); the head itself is not masked.
    Images whose primary class is hidden have no label.

    Args:
        labeler: where the labels come from.
        weight: see `AuxiliaryTask`.

    Attributes:
        target: of the last batch's labelled images, detached.
    """

    head: nn.Module
    focal_gamma: float

    def __init__(self, labeler: Labeler, weight: float = 1.0) -> None:
        super().__init__(weight)
        self.labeler = labeler
        self.target: AuxiliaryTarget | None = None
        self._given: AuxiliaryTarget | None = None

    def bind(self, place: TaskPlace) -> None:
        """See `AuxiliaryTask.bind`."""
        self.labeler.bind(place.hierarchy, place.trunk, place.feature_dim)
        self.head = Head(place.feature_dim, place.hierarchy.num_auxiliary, place.head_dim)
        self.focal_gamma = place.focal_gamma

    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `AuxiliaryTask.forward`."""
        known = batch.primary >= 0
        if not known.all():
            batch, features = batch.select(known), features[known]
        target = self.labeler(batch, features) if self._given is None else self._given
        self.target = AuxiliaryTarget(*(part.detach() for part in target))
        return focal_loss(self.head(features), target.probabilities, self.focal_gamma), target.weight

    @property
    def has_given(self) -> bool:
        """Whether labels are given now."""
        return self._given is not None

    @contextmanager
    def given(self, target: AuxiliaryTarget | None) -> Iterator[None]:
        """Train on `target` inside this block instead of asking the labeler: labels at hand, or explored ones.

        None: ask the labeler, whatever is given outside of the block.
        """
        outer, self._given = self._given, target
        try:
            yield
        finally:
            self._given = outer
