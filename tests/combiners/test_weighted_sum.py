import pytest
import torch

from auxlight import StepContext, WeightedSum
from auxlight.combiners import TaskLosses

PRIMARY = [1.0, 2.0, 6.0]
AUXILIARY = [[0.5, 1.5, 2.5], [4.0, 0.0, 1.0]]
WEIGHTS = [[1.0, 32.0, 1 / 32], [0.0, 7.0, 2.0]]


def expected(tasks: int) -> float:
    total = sum(PRIMARY) / 3
    for m in range(tasks):
        total += sum(AUXILIARY[m][i] * WEIGHTS[m][i] for i in range(3)) / 3
    return total


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_value_and_gradient(tasks):
    primary = torch.tensor(PRIMARY, requires_grad=True)
    auxiliary = [torch.tensor(row, requires_grad=True) for row in AUXILIARY[:tasks]]
    losses = TaskLosses(primary, tuple(auxiliary), tuple(map(torch.tensor, WEIGHTS[:tasks])))
    total = WeightedSum()(losses, StepContext([], []))
    assert total.item() == pytest.approx(expected(tasks))
    total.backward()
    assert primary.grad.tolist() == pytest.approx([1 / 3] * 3)
    for m in range(tasks):
        assert auxiliary[m].grad.tolist() == pytest.approx([w / 3 for w in WEIGHTS[m]])


def test_has_nothing_to_learn():
    assert not list(WeightedSum().parameters())
