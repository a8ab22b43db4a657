"""Small stand-ins for the parts around the game."""

from typing import Any

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.rl.learner import Learner
from auxlight.rl.rewards import Reward

SHAPE = (1, 2, 2)


class RecordingLearner:
    """Learns nothing; remembers what it was asked to do."""

    def __init__(self, loss: float = 0.5) -> None:
        self.loss = loss
        self.trained: list[tuple[Batch, AuxiliaryTarget]] = []
        self.measured: list[Batch] = []
        self.calls: list[str] = []

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        self.calls.append("train")
        self.trained.append((batch, target))

    def primary_loss(self, batch: Batch) -> float:
        self.calls.append("measure")
        self.measured.append(batch)
        return self.loss

    def snapshot(self) -> None:
        self.calls.append("snapshot")

    def restore(self) -> None:
        self.calls.append("restore")


class RewardLabel(Reward):
    """1 for images that got the label of their kind (the sign of their first pixel), 0 for others."""

    def __init__(self) -> None:
        super().__init__(batch_size=4)

    def after_step(
        self, learner: Learner, batch: Batch, target: AuxiliaryTarget, evaluation: Batch, before: Any
    ) -> Tensor:
        good = torch.where(batch.image[:, 0, 0, 0] > 0, 1, 0)
        return (target.probabilities.argmax(-1) == good).float()


class TinyTrunk(nn.Module):
    feature_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 16), nn.Tanh())

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


def batches(count: int, size: int, seed: int = 0, classes: int = 1) -> list[Batch]:
    """Random images whose index tells them apart."""
    generator = torch.Generator().manual_seed(seed)
    return [
        Batch(
            torch.randn(size, *SHAPE, generator=generator),
            torch.randint(classes, (size,), generator=generator),
            None,
            torch.arange(i * size, (i + 1) * size),
        )
        for i in range(count)
    ]
