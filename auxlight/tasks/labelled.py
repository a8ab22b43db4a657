"""Classification against labels that somebody gives: a human, an agent, a network, chance."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.functional import focal_loss
from auxlight.labelers.base import Labeler
from auxlight.networks.heads import Head
from auxlight.tasks.base import AuxiliaryTask, TaskPlace


def check_target(target: object, size: int, labeler: Labeler) -> None:
    """Refuse what is no target.

    Args:
        target: of some images.
        size: how many, B.
        labeler: that gave it.

    Raises:
        InputError: no `AuxiliaryTarget`, other shapes, or probabilities that are none.
    """
    rule = f"`forward` of {type(labeler).__name__} must return an AuxiliaryTarget:"
    if not isinstance(target, AuxiliaryTarget):
        raise InputError(
            f"{rule} probabilities and weights, see `Labeler.hard_target`. Found a {type(target).__name__}."
        )
    shapes = ((size, labeler.hierarchy.num_auxiliary), (size,))
    found = tuple(tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__ for part in target)
    if found != shapes:
        raise InputError(f"{rule} probabilities of shape {shapes[0]} and weights of shape {shapes[1]}. Found {found}.")
    weights = target.weight.detach()
    wrong = weights[~((weights >= 0) & weights.isfinite())]
    if len(wrong):
        raise InputError(f"{rule} weights ≥ 0 that are finite. Found {float(wrong[0]):g} among them.")
    counted = target.probabilities.detach().float()[target.weight > 0]
    sums = counted.sum(1)
    if not (counted >= 0).all() or not ((sums - 1).abs() < 0.02).all():
        least, total = float(counted.min()), float(sums[(sums - 1).abs().argmax()])
        raise InputError(f"{rule} probabilities ≥ 0 that sum to 1. Found {least:g} among them, and a sum of {total:g}.")


class LabelledTask(AuxiliaryTask):
    """Focal loss of the head's K logits against the labeler's target (RL-AUX, MAXL).

    The target is a softmax masked to the block of the primary class (Eq. 5 and 6); the head itself is not masked.
    Images whose primary class is hidden have no label.

    Args:
        labeler: where the labels come from.
        weight: see `AuxiliaryTask`.

    Raises:
        InputError: a labeler that is none; in its first step, one that gives no targets.

    Attributes:
        target: of the last batch's labelled images, detached.
    """

    head: nn.Module
    focal_gamma: float

    def __init__(self, labeler: Labeler, weight: float = 1.0) -> None:
        super().__init__(weight)
        if not isinstance(labeler, Labeler):
            found = f"the class {labeler.__name__}" if isinstance(labeler, type) else f"a {type(labeler).__name__}"
            raise InputError(f"`labeler` must be an auxlight.Labeler, one that is made. Found {found}.")
        self.labeler = labeler
        self._checked = False
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
        target = self._labels(batch, features) if self._given is None else self._given
        # The auxiliary loss would train a labeler to say what is easy to learn.
        self.target = AuxiliaryTarget(*(part.detach() for part in target))
        return focal_loss(self.head(features), self.target.probabilities, self.focal_gamma), self.target.weight

    def _labels(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """The labeler's; what it says is looked at until it has labelled some image."""
        target: AuxiliaryTarget = self.labeler(batch, features)
        if not self._checked:
            check_target(target, len(features), self.labeler)
            self._checked = bool((target.weight > 0).any())  # of images that do not count nothing was looked at
        return target

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
