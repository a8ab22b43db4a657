"""The labels and weights that an epoch trained with."""

from typing import NamedTuple

import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.functional import decided_label


class EpochLabels(NamedTuple):
    """Of the labelled images of an epoch's batches (those of this device), in their order, on the CPU.

    Attributes:
        index: (N,) int64, position in the training set.
        primary: (N,) int64, primary class.
        human: (N,) int64, human sub-label; None where there are none.
        label: (N,) int64, the most probable auxiliary class, −1 where none is (`functional.decided_label`).
        confidence: (N,) float, probability of the most probable class.
        weight: (N,) float, λ_i.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which nobody asks for
    primary: Tensor
    human: Tensor | None
    label: Tensor
    confidence: Tensor
    weight: Tensor


class LabelRecorder:
    """Collects `EpochLabels`, batch by batch."""

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, ...]] = []

    def add(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """Remember a training batch; they stay on their device, which need not wait."""
        known = batch.primary >= 0
        batch = batch if len(target.weight) == len(known) else batch.select(known)
        human = () if batch.auxiliary is None else (batch.auxiliary,)
        label, confidence = decided_label(target.probabilities), target.probabilities.max(1).values.float()
        self._batches.append((batch.index, batch.primary, label, confidence, target.weight.float(), *human))

    def labels(self) -> EpochLabels | None:
        """Those since the last reset; None without."""
        if not self._batches:
            return None
        columns = [torch.cat(parts).cpu() for parts in zip(*self._batches, strict=True)]
        index, primary, label, confidence, weight, *human = columns
        return EpochLabels(index, primary, human[0] if human else None, label, confidence, weight)

    def reset(self) -> None:
        """Begin anew."""
        self._batches = []
