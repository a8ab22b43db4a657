import math

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD

from auxlight import AuxiliaryClassifier, Batch, DigitsDataModule, ExemplarTask, InputError, LabelHierarchy
from auxlight.tasks import TaskPlace
from tests.quiet import TRAINER


class Trunk(nn.Module):
    """With batch norm; remembers its images."""

    feature_dim = 6

    def __init__(self, norm=True):
        super().__init__()
        layers = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Tanh(), nn.AdaptiveAvgPool2d(2)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 6))
        self.seen = []

    def forward(self, image):
        self.seen.append(image.detach())
        return self.layers(image)


def make(norm=True, **options):
    task, trunk = ExemplarTask(**options), Trunk(norm)
    task.bind(TaskPlace(LabelHierarchy((2, 2)), trunk, 6))
    return task, trunk


def move(trunk):
    """A training step that goes far."""
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter += torch.randn_like(parameter)


def batch_of(image):
    return Batch(image, torch.full((len(image),), -1), None, torch.arange(len(image)))


def values(network):
    return [parameter.detach().clone() for parameter in network.parameters()]


# --- the loss


def test_the_loss_is_one_minus_the_cosine_between_trunk_and_teacher():
    task, trunk = make(norm=False, noise=0.0, hole=0.0)  # which leaves the flip alone
    image = torch.randn(20, 3, 8, 8)
    move(trunk)
    losses, weight = task(trunk, torch.full((20, 6), torch.nan), batch_of(image))
    (seen,) = trunk.seen
    flipped = [np.array_equal(s, x.numpy()[..., ::-1]) for s, x in zip(seen, image, strict=True)]
    assert 0 < sum(flipped) < 20
    with torch.no_grad():
        for loss, flip, x in zip(losses.tolist(), flipped, image, strict=True):
            one = trunk.layers((x.flip(-1) if flip else x)[None])[0].tolist()
            other = task.teacher.module.layers(x[None])[0].tolist()
            dot = sum(a * b for a, b in zip(one, other, strict=True))
            assert loss == pytest.approx(1 - dot / math.hypot(*one) / math.hypot(*other), rel=1e-4, abs=1e-6)
            assert loss > 0.01
    assert weight.tolist() == [1] * 20


def test_nothing_is_lost_where_trunk_and_teacher_see_the_same():
    task, trunk = make(norm=False, noise=0.0, hole=0.0)
    left = torch.randn(5, 3, 8, 4)
    losses, _ = task(trunk, None, batch_of(torch.cat([left, left.flip(-1)], -1)))
    assert losses.detach().abs().max() < 1e-5


def test_trunk_learns_and_teacher_does_not():
    task, trunk = make()
    move(trunk)
    before = values(task.teacher)
    task(trunk, None, batch_of(torch.randn(8, 3, 8, 8)))[0].mean().backward()
    # A shift in front of batch norm has no effect.
    assert all(p.grad.abs().sum() > 0 for name, p in trunk.named_parameters() if name != "layers.0.bias")
    assert all(parameter.grad is None for parameter in task.teacher.parameters())
    assert all(map(torch.equal, values(task.teacher), before))


@pytest.mark.parametrize("training", [False, True])
def test_statistics_do_not_count_what_the_task_shows(training):
    task, trunk = make()
    image = torch.randn(8, 3, 8, 8) + 3
    for network in (trunk, task.teacher):
        network.train(training)
    before = {name: buffer.clone() for part in (trunk, task) for name, buffer in part.named_buffers()}
    own = [id(buffer) for part in (trunk, task) for buffer in part.buffers()]
    losses, _ = task(trunk, None, batch_of(image))
    losses.sum().backward()
    after = {name: buffer for part in (trunk, task) for name, buffer in part.named_buffers()}
    assert len(after) == 7  # three of each batch norm, and the teacher's count of its steps
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert [id(buffer) for part in (trunk, task) for buffer in part.buffers()] == own
    trunk(image)
    moved = not torch.equal(trunk.layers[1].running_mean, before["layers.1.running_mean"])
    assert moved == training


# --- the teacher


@pytest.mark.parametrize("memory", [0.0, 0.7, 0.95])
def test_the_teacher_is_a_moving_average_that_begins_with_the_first_step(memory):
    task, trunk = make(memory=memory)
    past = []
    for steps in range(1, 6):
        move(trunk)
        past.append(values(trunk))
        task.before_step(trunk)
        # m^(n−1) w_1 + (1 − m) Σ_{k ≥ 2} m^(n−k) w_k
        shares = [memory ** (steps - 1)] + [(1 - memory) * memory ** (steps - k) for k in range(2, steps + 1)]
        for i, value in enumerate(values(task.teacher)):
            torch.testing.assert_close(value, sum(share * w[i] for share, w in zip(shares, past, strict=True)))


def test_until_then_the_teacher_is_the_trunk_as_it_was():
    task, trunk = make()
    before = values(trunk)
    move(trunk)
    assert all(map(torch.equal, values(task.teacher), before))
    assert not any(map(torch.equal, values(task.teacher), values(trunk)))


def test_the_teacher_has_the_trunks_statistics():
    task, trunk = make()
    for _ in range(3):
        trunk(torch.randn(8, 3, 8, 8) + 3)
        task.before_step(trunk)
        assert all(map(torch.equal, task.teacher.module.buffers(), trunk.buffers()))
    assert trunk.layers[1].num_batches_tracked == 3


def test_no_optimizer_holds_the_teacher():
    task, trunk = ExemplarTask(), Trunk()
    module = AuxiliaryClassifier((2, 2), trunk, tasks=[task])
    held = {id(p) for group in module.configure_optimizers().param_groups for p in group["params"]}
    assert held == {id(p) for part in (trunk, module.primary_head) for p in part.parameters()}
    assert not held & {id(p) for p in task.teacher.parameters()}
    assert {name for name in module.state_dict() if name.startswith("tasks.0.teacher.module")}  # so that runs resume


class Watched(ExemplarTask):
    """Remembers the trunk of each step, and the teacher that it led to."""

    def __init__(self, **options):
        super().__init__(**options)
        self.trunks, self.teachers = [], []

    def before_step(self, trunk):
        super().before_step(trunk)
        self.trunks.append(values(trunk))
        self.teachers.append(values(self.teacher))


def test_in_a_fit_the_teacher_follows_once_a_step():
    data, task = DigitsDataModule(num_train=100, batch_size=20), Watched(memory=0.8)
    module = AuxiliaryClassifier(data.hierarchy, Trunk(), tasks=[task], optimizer=lambda p: SGD(p, lr=0.5))
    L.Trainer(max_epochs=1, limit_val_batches=0, **TRAINER).fit(module, data)
    assert len(task.trunks) == 5
    assert all(map(torch.equal, task.teachers[0], task.trunks[0]))
    for n in range(1, 5):
        for now, last, w in zip(task.teachers[n], task.teachers[n - 1], task.trunks[n], strict=True):
            torch.testing.assert_close(now, 0.8 * last + 0.2 * w)
        assert not any(map(torch.equal, task.trunks[n], task.trunks[n - 1]))
    assert all(map(torch.equal, values(task.teacher), task.teachers[-1]))  # no step of an optimizer came after it


# --- what is done to the images


def holes(hole, count=2000, size=(32, 32)):
    """(count, H, W) bool, of images without noise."""
    task = ExemplarTask(noise=0.0, hole=hole)
    out = task.transformed(torch.ones(count, 3, *size))
    assert ((out == 0) | (out == 1)).all()
    assert torch.equal(out[:, 0], out[:, 1]) and torch.equal(out[:, 0], out[:, 2])
    return (out[:, 0] == 0).numpy()


@pytest.mark.parametrize(("hole", "size"), [(0.5, (32, 32)), (0.25, (32, 32)), (0.75, (16, 32))])
def test_holes_cover_their_share_of_the_image(hole, size):
    # Centres lie anywhere: of a side, h − h²/4 lies inside on average, and the square of that of the image.
    assert holes(hole, 4000, size).mean() == pytest.approx((hole - hole**2 / 4) ** 2, rel=0.04)


def test_a_hole_is_one_rectangle_cut_off_by_the_border_alone():
    masks = holes(0.5)
    for mask in masks:
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        for side in (rows, columns):
            (inside,) = side.nonzero()
            assert np.array_equal(inside, np.arange(inside[0], inside[-1] + 1))
            assert len(inside) == 16 or (8 <= len(inside) < 16 and (side[0] or side[-1]))
    assert len({mask.tobytes() for mask in masks}) > 600  # of 1089 places
    assert masks.any(0).all() and (masks.all(1).any(), masks.all(2).any()) == (False, False)


def test_without_a_hole_nothing_is_cut():
    assert not holes(0.0).any()


def test_half_of_the_images_are_flipped_each_by_its_own_toss():
    image = torch.randn(1000, 3, 2, 2)
    out = ExemplarTask(noise=0.0, hole=0.0).transformed(image)
    flipped, same = ((out == x).all(3).all(2).all(1) for x in (image.flip(-1), image))
    assert torch.equal(flipped, ~same)
    assert abs(flipped.sum().item() - 500) < 80  # 500 ± 16
    assert 400 < (flipped[1:] != flipped[:-1]).sum() < 600


@pytest.mark.parametrize("noise", [0.1, 0.7])
def test_noise_is_in_units_of_the_batchs_deviation(noise):
    image = (5 + 3 * torch.randn(200, 1, 1, 1)).expand(-1, 3, 16, 16)  # a flip changes nothing
    added = ExemplarTask(noise=noise, hole=0.0).transformed(image) - image
    assert added.mean().item() == pytest.approx(0, abs=0.05 * noise)
    assert added.std().item() == pytest.approx(noise * image.numpy().std(), rel=0.02)
    kurtosis = (added / added.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3, abs=0.1)  # normal
    rows = added.flatten(1)
    assert torch.corrcoef(torch.stack([rows[:-1].flatten(), rows[1:].flatten()]))[0, 1].abs() < 0.02
    channels = added.transpose(0, 1).flatten(1)
    assert (torch.corrcoef(channels) - torch.eye(3)).abs().max() < 0.03


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("noise", value) for value in (-0.1, math.nan)],
        *[(name, value) for name in ("hole", "memory") for value in (-0.1, 1.0, 1.5, math.nan)],
    ],
)
def test_arguments_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=rf"`noise` ≥ 0, and `hole` and `memory` in \[0, 1\).*{name}={value}"):
        ExemplarTask(**{name: value})
