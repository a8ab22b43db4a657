"""What steps return."""

from typing import NamedTuple

from torch import Tensor

from auxlight.combiners.base import TaskLosses


class StepOutputs(NamedTuple):
    """Of one batch: features (B, D), primary logits (B, C), losses of the tasks, and the scalar that is minimised.

    A rule on gradients has used up the losses' graph; that of `loss` is the one to go on with.
    """

    features: Tensor
    logits: Tensor
    losses: TaskLosses
    loss: Tensor


class Prediction(NamedTuple):
    """What `predict_step` returns: positions (B,), primary classes (B,) and class probabilities (B, C)."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for
    primary: Tensor
    probabilities: Tensor
