"""What is logged of an agent's epoch: its rewards, the labels that it chose for each class, and their weights."""

from typing import Any

import torch
from torch import Tensor

from auxlight.labelers.actions import LabelActions
from auxlight.rl.game import Labelled


class Tally:
    """Counts over the batches of an agent's epoch.

    Args:
        actions: what the agent may say.
    """

    def __init__(self, actions: LabelActions) -> None:
        self.actions = actions
        self._rewards: list[Tensor] = []
        self._weights: list[Tensor] = []
        self._places: list[Tensor] = []
        self._primary: list[Tensor] = []

    def add(self, labelled: Labelled) -> None:
        """Count a labelled batch."""
        primary = labelled.batch.primary
        self._rewards.append(labelled.rewards.detach().float().cpu())
        self._weights.append(labelled.target.weight.detach().float().cpu())
        self._places.append(self.actions.places(labelled.chosen, primary).cpu())
        self._primary.append(primary.cpu())

    def scalars(self) -> dict[str, float]:
        """Mean reward; share of images whose label lay in their block; entropy in nats of a class's labels; weights."""
        rewards, weights, places, primary = self._all()
        entropies = [self._entropy(places[primary == y]) for y in torch.unique(primary)]
        return {
            "agent/reward": float(rewards.mean()),
            "agent/labels_inside": float((places >= 0).float().mean()),
            "agent/label_entropy": float(torch.tensor(entropies).mean()),
            "agent/weight_mean": float(weights.mean()),
            "agent/weight_min": float(weights.min()),
            "agent/weight_max": float(weights.max()),
        }

    def histograms(self) -> dict[str, Tensor]:
        """Weights, and for each primary class the places of its images' labels in the block; −1 is outside.

        Of this device's images.
        """
        _, weights, places, primary = self._all()
        per_class = {f"agent_labels/class_{int(y)}": places[primary == y] for y in torch.unique(primary)}
        return {"agent/weights": weights} | per_class

    def write_histograms(self, logger: Any, step: int) -> None:
        """To a TensorBoard logger; others have no histograms."""
        write = getattr(getattr(logger, "experiment", None), "add_histogram", None)
        for name, values in self.histograms().items() if write else ():
            write(name, values, step)  # type: ignore[misc]

    @staticmethod
    def _entropy(places: Tensor) -> float:
        places = places[places >= 0]
        return float(torch.special.entr(places.bincount() / max(1, len(places))).sum())

    def _all(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        parts = (self._rewards, self._weights, self._places, self._primary)
        rewards, weights, places, primary = (torch.cat(part) for part in parts)
        return rewards, weights, places, primary
