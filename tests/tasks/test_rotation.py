import numpy as np
import pytest
import torch
from torch import nn

from auxlight import Batch, InputError, LabelHierarchy, RotationTask
from auxlight.tasks import TaskPlace
from auxlight.tasks.rotation import rotated


class Trunk(nn.Module):
    """Sees where things are; remembers its images."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 6))
        self.seen = []

    def forward(self, image):
        self.seen.append(image.detach())
        return self.layers(image)


def make(gamma=2.0, **options):
    task, trunk = RotationTask(**options), Trunk()
    task.bind(TaskPlace(LabelHierarchy((2, 2)), trunk, 6, None, gamma))
    # No label is needed, and the features of the unturned images are not either.
    batch = Batch(torch.randn(24, 3, 6, 6), torch.full((24,), -1), None, torch.arange(24))
    return task, trunk, batch


def turned(image, quarters):
    """One image (C, H, H), by numpy."""
    return np.stack([np.rot90(channel, quarters) for channel in image.numpy()])


def turns_of(seen, image):
    """By how many quarters each image was turned: exactly one answer fits."""
    pairs = zip(image, seen, strict=True)
    fits = [[np.array_equal(turned(before, k), after) for k in range(4)] for before, after in pairs]
    assert all(sum(row) == 1 for row in fits)
    return [row.index(True) for row in fits]


def loss_of(task, trunk, image, quarters, gamma):
    """−(1 − p)^γ log p of one image by one turn."""
    with torch.no_grad():
        logits = task.head(trunk.layers(torch.from_numpy(turned(image, quarters))[None]))[0].double().numpy()
    p = np.exp(logits[quarters]) / np.exp(logits).sum()
    return -((1 - p) ** gamma) * np.log(p)


def test_each_image_is_turned_by_its_own_number_of_quarters():
    image, turns = torch.randn(9, 2, 5, 5), torch.tensor([0, 1, 2, 3, 3, 1, 0, 2, 1])
    result = rotated(image, turns)
    for before, quarters, after in zip(image, turns.tolist(), result, strict=True):
        np.testing.assert_array_equal(after, turned(before, quarters))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_loss_is_that_of_telling_the_turn_that_was_made(gamma):
    task, trunk, batch = make(gamma)
    losses, weight = task(trunk, torch.full((24, 6), torch.nan), batch)
    (seen,) = trunk.seen
    turns = turns_of(seen, batch.image)
    assert set(turns) == {0, 1, 2, 3}
    expected = [loss_of(task, trunk, *pair, gamma) for pair in zip(batch.image, turns, strict=True)]
    assert losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert weight.tolist() == [1] * 24


def test_turns_follow_the_seed_and_are_drawn_anew_each_time():
    task, trunk, batch = make()
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        task(trunk, None, batch)
        task(trunk, None, batch)
    one, one_later, again, again_later, other, _ = (turns_of(seen, batch.image) for seen in trunk.seen)
    assert one == again and one_later == again_later
    assert one != one_later and one != other


def test_turns_are_equally_frequent():
    task, trunk, batch = make()
    for _ in range(50):
        task(trunk, None, batch)
    counts = np.bincount([turn for seen in trunk.seen for turn in turns_of(seen, batch.image)])
    assert abs(counts - 300).max() < 75  # 300 ± 15 by chance: five standard deviations


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_every_turn_has_the_mean_loss_of_all_four(gamma):
    task, trunk, batch = make(gamma, every_turn=True)
    losses, weight = task(trunk, None, batch)
    expected = [np.mean([loss_of(task, trunk, image, k, gamma) for k in range(4)]) for image in batch.image]
    assert losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert weight.tolist() == [1] * 24
    assert sum(map(len, trunk.seen)) == 4 * 24


@pytest.mark.parametrize("every_turn", [False, True])
def test_trunk_and_head_learn_from_it(every_turn):
    task, trunk, batch = make(every_turn=every_turn)
    task(trunk, None, batch)[0].mean().backward()
    for parameter in (*trunk.parameters(), *task.head.parameters()):
        assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize("every_turn", [False, True])
def test_the_trunks_gradient_by_central_differences(every_turn):
    task, trunk, batch = make(every_turn=every_turn)
    task, trunk, batch = task.double(), trunk.double(), batch._replace(image=batch.image.double())

    def mean():
        torch.manual_seed(3)
        return task(trunk, None, batch)[0].mean()

    mean().backward()
    weight = trunk.layers[0].weight
    for place in ((0, 0, 0, 0), (2, 1, 1, 2), (3, 2, 2, 1)):
        losses = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                weight[place] += step
            losses.append(mean().item())
        with torch.no_grad():
            weight[place] += 1e-6
        assert weight.grad[place].item() == pytest.approx((losses[0] - losses[1]) / 2e-6, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(("head_dim", "hidden"), [(None, 6), (11, 11)])
def test_the_head_has_four_logits(head_dim, hidden):
    task = RotationTask()
    task.bind(TaskPlace(LabelHierarchy((2, 2)), nn.Identity(), 6, head_dim))
    assert [tuple(p.shape) for p in task.head.parameters()] == [(hidden, 6), (hidden,), (4, hidden), (4,)]


def test_images_that_are_not_square_are_refused():
    with pytest.raises(InputError, match=r"RotationTask needs square images. Found 8 × 6: crop them"):
        rotated(torch.zeros(2, 3, 8, 6), torch.tensor([0, 1]))
