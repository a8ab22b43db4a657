import math

import pytest
import torch
from torch import nn

from auxlight import Batch, InputError, LabelHierarchy, PlaceTask
from auxlight.tasks import TaskPlace

PSI = (2, 3, 1)  # auxiliary classes 0 1 | 2 3 4 | 5
PLACES = [0, 1, 0, 1, 2, 0]


def make(gamma=2.0, head_dim=None):
    task = PlaceTask()
    task.bind(TaskPlace(LabelHierarchy(PSI), nn.Identity(), 4, head_dim, gamma))
    return task


def batch_of(auxiliary, primary=None):
    count = len(auxiliary)
    primary = torch.zeros(count, dtype=torch.int64) if primary is None else torch.tensor(primary)
    return Batch(torch.zeros(count, 3, 2, 2), primary, torch.tensor(auxiliary), torch.arange(count))


def expected(task, features, places, gamma):
    losses = []
    for logits, place in zip(task.head(features).tolist(), places, strict=True):
        powers = [math.exp(z) for z in logits]
        p = powers[place] / sum(powers)
        losses.append(-((1 - p) ** gamma) * math.log(p))
    return losses


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_class_is_the_place_in_the_block(gamma):
    task, features = make(gamma), torch.randn(6, 4)
    losses, weight = task(nn.Identity(), features, batch_of(list(range(6))))
    assert losses.tolist() == pytest.approx(expected(task, features, PLACES, gamma), rel=1e-5)
    assert weight.tolist() == [1] * 6


def test_hidden_sub_labels_are_left_out():
    task, features = make(), torch.randn(6, 4)
    losses, weight = task(nn.Identity(), features, batch_of([4, -1, 1, -1, 3, 5], [1, -1, 0, -1, 1, 2]))
    assert losses.tolist() == pytest.approx(expected(task, features[[0, 2, 4, 5]], [2, 1, 1, 0], 2), rel=1e-5)
    assert weight.tolist() == [1] * 4


def test_a_batch_without_a_sub_label_has_no_loss():
    losses, weight = make()(nn.Identity(), torch.randn(2, 4), batch_of([-1, -1]))
    assert losses.shape == weight.shape == (0,)


@pytest.mark.parametrize(("head_dim", "hidden"), [(None, 4), (9, 9)])
def test_the_head_has_as_many_logits_as_the_largest_block(head_dim, hidden):
    task, features = make(head_dim=head_dim), torch.randn(5, 4)
    assert [tuple(p.shape) for p in task.head.parameters()] == [(hidden, 4), (hidden,), (3, hidden), (3,)]
    assert torch.equal(task.logits(features), task.head(features))


def test_features_and_head_learn_from_it():
    task, features = make(), torch.randn(6, 4, requires_grad=True)
    task(nn.Identity(), features, batch_of([0, 1, -1, 3, 4, 5]))[0].sum().backward()
    assert features.grad.abs().sum(1).gt(0).tolist() == [True, True, False, True, True, True]
    assert all(parameter.grad.abs().sum() > 0 for parameter in task.head.parameters())


def test_data_without_sub_labels_are_refused():
    with pytest.raises(InputError, match=r"PlaceTask needs a data set with human sub-labels. Found none"):
        make()(nn.Identity(), torch.randn(2, 4), batch_of([0, 1])._replace(auxiliary=None))
