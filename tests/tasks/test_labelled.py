import math

import pytest
import torch
from torch import nn

from auxlight import AuxiliaryTarget, Batch, Labeler, LabelHierarchy
from auxlight.tasks import LabelledTask


class Told(Labeler):
    """Says what it was told and remembers what it saw."""

    def __init__(self, target: AuxiliaryTarget) -> None:
        super().__init__()
        self.target = target

    def forward(self, batch: Batch, features: torch.Tensor) -> AuxiliaryTarget:
        self.seen = (batch, features)
        return self.target


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_unweighted_losses_of_the_unmasked_head_and_the_labelers_weights(gamma):
    torch.manual_seed(0)
    target = AuxiliaryTarget(
        torch.tensor([[0.25, 0.75, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5]]), torch.tensor([1, 2, 3])
    )
    labeler = Told(target)
    labeler.bind(LabelHierarchy((2, 2)), nn.Identity(), 4)
    task = LabelledTask(nn.Linear(5, 4), labeler, gamma)
    features = torch.randn(3, 5)
    batch = Batch(torch.zeros(3, 1, 1, 1), torch.tensor([0, 1, 1]), None, torch.arange(3))
    losses, weight = task(nn.Identity(), features, batch)
    assert weight is target.weight
    assert labeler.seen[0] is batch and labeler.seen[1] is features
    for loss, logits, t in zip(
        losses.tolist(), task.head(features).tolist(), target.probabilities.tolist(), strict=True
    ):
        powers = [math.exp(z) for z in logits]
        p = [power / sum(powers) for power in powers]  # over all four classes: the head is not masked
        expected = -sum(t[k] * (1 - p[k]) ** gamma * math.log(p[k]) for k in range(4))
        assert loss == pytest.approx(expected, rel=1e-5)
