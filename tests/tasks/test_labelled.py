import math

import pytest
import torch
from torch import nn

from auxlight import AuxiliaryTarget, Batch, InputError, Labeler, LabelHierarchy
from auxlight.tasks import LabelledTask, TaskPlace

TARGET = AuxiliaryTarget(
    torch.tensor([[0.25, 0.75, 0, 0], [0, 0, 1, 0], [0, 0, 0.5, 0.5]]), torch.tensor([1.0, 2.0, 3.0])
)


class Told(Labeler):
    """Says what it was told and remembers what it saw."""

    def __init__(self, target: AuxiliaryTarget) -> None:
        super().__init__()
        self.target = target
        self.seen = []

    def forward(self, batch: Batch, features: torch.Tensor) -> AuxiliaryTarget:
        self.seen.append((batch, features))
        return self.target


def make(target=TARGET, gamma=2.0, head_dim=None):
    task = LabelledTask(Told(target))
    task.bind(TaskPlace(LabelHierarchy((2, 2)), nn.Identity(), 5, head_dim, gamma))
    return task


def batch_of(primary):
    count = len(primary)
    image = torch.arange(count, dtype=torch.float32)[:, None, None, None]
    return Batch(image, torch.tensor(primary), None, torch.arange(count) + 10)


def focal(logits, target, gamma):
    """Of one image, over all four classes: the head is not masked."""
    powers = [math.exp(z) for z in logits]
    p = [power / sum(powers) for power in powers]
    return -sum(target[k] * (1 - p[k]) ** gamma * math.log(p[k]) for k in range(4))


def assert_losses(task, losses, features, target, gamma=2.0):
    rows = zip(task.head(features).tolist(), target.probabilities.tolist(), strict=True)
    assert losses.tolist() == pytest.approx([focal(logits, t, gamma) for logits, t in rows], rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_unweighted_losses_of_the_unmasked_head_and_the_labelers_weights(gamma):
    task, features, batch = make(gamma=gamma), torch.randn(3, 5), batch_of([0, 1, 1])
    task.head = nn.Linear(5, 4)
    losses, weight = task(nn.Identity(), features, batch)
    assert torch.equal(weight, TARGET.weight)
    ((seen_batch, seen_features),) = task.labeler.seen
    assert seen_batch is batch and seen_features is features
    assert_losses(task, losses, features, TARGET, gamma)


@pytest.mark.parametrize(("head_dim", "hidden"), [(None, 5), (7, 7)])
def test_the_head_has_a_logit_for_each_auxiliary_class(head_dim, hidden):
    task = make(head_dim=head_dim)
    assert task.head(torch.randn(3, 5)).shape == (3, 4)
    assert [tuple(p.shape) for p in task.head.parameters()] == [(hidden, 5), (hidden,), (4, hidden), (4,)]
    assert task.labeler.mask.tolist() == [[True, True, False, False], [False, False, True, True]]


def test_images_of_a_hidden_class_are_left_out_and_the_labeler_never_sees_them():
    task, features, batch = make(), torch.randn(5, 5), batch_of([-1, 0, 1, -1, 1])
    losses, weight = task(nn.Identity(), features, batch)
    assert weight.tolist() == [1, 2, 3]
    known = features[[1, 2, 4]]
    assert_losses(task, losses, known, TARGET)
    ((seen_batch, seen_features),) = task.labeler.seen
    assert torch.equal(seen_features, known)
    assert seen_batch.primary.tolist() == [0, 1, 1] and seen_batch.index.tolist() == [11, 12, 14]
    assert seen_batch.image.flatten().tolist() == [1, 2, 4]


def test_a_batch_without_a_labelled_image_has_no_loss():
    task = make(AuxiliaryTarget(torch.zeros(0, 4), torch.zeros(0)))
    losses, weight = task(nn.Identity(), torch.randn(3, 5), batch_of([-1, -1, -1]))
    assert losses.shape == weight.shape == (0,)


def test_the_last_target_is_kept_without_its_graph():
    target = AuxiliaryTarget(*(part.clone().requires_grad_() for part in TARGET))
    task = make(target)
    assert task.target is None
    task(nn.Identity(), torch.randn(3, 5), batch_of([0, 1, 1]))
    for kept, told in zip(task.target, target, strict=True):
        assert torch.equal(kept, told) and not kept.requires_grad and kept.grad_fn is None
    task.labeler.target = later = AuxiliaryTarget(TARGET.probabilities.flip(1), TARGET.weight + 1)
    task(nn.Identity(), torch.randn(3, 5), batch_of([1, 0, 0]))
    assert all(torch.equal(kept, told) for kept, told in zip(task.target, later, strict=True))


def test_given_targets_take_the_labelers_place_inside_their_block_alone():
    task, features, batch = make(), torch.randn(3, 5), batch_of([0, 1, 1])
    other = AuxiliaryTarget(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0], [0, 0, 1.0, 0]]), torch.tensor([4.0, 5.0, 6]))
    inner = AuxiliaryTarget(other.probabilities.roll(1, 0), other.weight + 3)

    def check(expected):
        losses, weight = task(nn.Identity(), features, batch)
        assert weight.tolist() == expected.weight.tolist()
        assert_losses(task, losses, features, expected)

    with task.given(other):
        check(other)
        with task.given(inner):
            check(inner)
        check(other)
    assert task.labeler.seen == []
    with pytest.raises(KeyError), task.given(other):
        raise KeyError
    check(TARGET)
    assert len(task.labeler.seen) == 1


def test_weights_that_are_none_are_refused_also_after_images_that_do_not_count():
    wrong = AuxiliaryTarget(7 * TARGET.probabilities, TARGET.weight)
    task, features, batch = make(wrong._replace(weight=torch.zeros(3))), torch.randn(3, 5), batch_of([0, 1, 1])
    task(nn.Identity(), features, batch)  # a warm-up
    task.labeler.target = wrong
    with pytest.raises(InputError, match="sum to 1"):
        task(nn.Identity(), features, batch)
    for weight in (-1.0, math.nan, math.inf):
        task.labeler.target = TARGET._replace(weight=torch.tensor([1.0, weight, 1.0]))
        with pytest.raises(InputError, match=f"weights ≥ 0 that are finite. Found {weight:g}"):
            task(nn.Identity(), features, batch)
