import copy
from functools import partial

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR

from auxlight import (
    DigitsDataModule,
    HumanLabels,
    InputError,
    LabelNetwork,
    MAXLModule,
    MultiHeadVGG,
    UniformLabels,
)
from auxlight.batch import Batch
from auxlight.functional import batch_entropy, focal_loss
from auxlight.hypergradient import DoubleBackward
from auxlight.modules.joint_losses import JointLosses
from tests.quiet import TRAINER


class Trunk(nn.Module):
    feature_dim = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(1))

    def forward(self, image):
        return self.layers(image).flatten(1)


def small(weighted=True, **arguments):
    labeler = LabelNetwork(weighted=weighted, trunk=Trunk(), **arguments.pop("labels", {}))
    return MAXLModule((2, 3), trunk=Trunk(), labeler=labeler, **arguments)


def batch_of(size=10, dtype=torch.float64):
    return Batch(torch.randn(size, 3, 8, 8, dtype=dtype), torch.arange(size) % 2, None, torch.arange(size))


def one_label_step(module, batches):
    """φ's gradient from one label step: what plain SGD at rate 1 subtracts."""
    module.label_optimizer = partial(SGD, lr=1.0)
    start = {name: p.detach().clone() for name, p in module.label_network.named_parameters()}
    trainer = L.Trainer(max_epochs=1, limit_train_batches=1, **TRAINER)
    original = module.label_step

    def training_step(_, batch_idx):
        original(batches)
        assert all(p.grad is None for p in module.parameters())

    module.training_step = training_step
    module.finish_pass = lambda: None
    module.needs_data_module = False
    trainer.fit(module, torch.utils.data.DataLoader(torch.zeros(2, 1)))
    return {name: start[name] - p.detach() for name, p in module.label_network.named_parameters()}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("optimizer", [partial(SGD, lr=0.5), partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.1)])
def test_the_label_networks_gradient_is_that_of_the_whole_pipeline(weighted, optimizer):
    """Written out: labels → one step of the main network, differentiably → primary loss on the same batch."""
    module = small(weighted, optimizer=optimizer, aux_weight=0.7).double()
    batch = batch_of()
    again = copy.deepcopy(module)
    got = one_label_step(module, [batch])

    network, target = JointLosses(again), again.label_network.generate(batch)
    theta = dict(network.named_parameters())
    features = again.trunk(batch.image)
    auxiliary = focal_loss(network.auxiliary_head(features), target.probabilities, 2.0)
    loss = focal_loss(network.primary_head(features), batch.primary, 2.0).mean()
    loss = loss + 0.7 * (target.weight * auxiliary).mean()
    slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
    decay = optimizer.keywords.get("weight_decay", 0)
    ahead = {name: p - 0.5 * (g + decay * p) for (name, p), g in zip(theta.items(), slopes, strict=True)}
    primary, _ = torch.func.functional_call(network, ahead, (batch,))
    meta = primary.mean() + 0.2 * batch_entropy(target.probabilities)
    parameters = dict(again.label_network.named_parameters())
    expected = torch.autograd.grad(meta, list(parameters.values()))
    assert got.keys() == parameters.keys()
    for name, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-8, atol=1e-13)


def test_weights_are_per_sample():
    module = small().double()
    nn.init.normal_(module.label_network.weight_head[2].weight)
    weight = module.label_network.generate(batch_of()).weight
    assert weight.shape == (10,)
    assert len(weight.unique()) == 10
    assert ((weight > 2**-5) & (weight < 2**5)).all()
    # The gradient of one sample's weight reaches that sample alone.
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    module.eval()
    batch = Batch(images, torch.zeros(4, dtype=torch.int64), None, torch.arange(4))
    module.label_network.generate(batch).weight[2].backward()
    assert [bool(g.abs().sum() > 0) for g in images.grad] == [False, False, True, False]


def test_labels_lie_in_the_block_and_sharpen_with_temperature():
    batch = batch_of()
    soft, sharp, hard = (
        small(labels=labels).double().label_network for labels in ({}, {"temperature": 0.1}, {"hard": True})
    )
    sharp.load_state_dict(soft.state_dict())
    hard.load_state_dict(soft.state_dict())
    tops = []
    for network in (soft, sharp, hard):
        p = network.generate(batch).probabilities
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
        assert (p[~network.mask[batch.primary]] == 0).all()
        tops.append(float(p.max(1).values.mean()))
    assert tops[0] < tops[1] <= tops[2] == pytest.approx(1)
    assert hard.generate(batch).probabilities.requires_grad  # straight-through


def fit(epochs=2, ckpt_path=None, seed=0, trainer_arguments=None, **arguments):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    arguments = {"labeler": LabelNetwork(weighted=True), "depth": 11, "width": 0.0625} | arguments
    module = MAXLModule(data.hierarchy, **arguments)
    start = copy.deepcopy(module.state_dict())
    trainer = L.Trainer(max_epochs=epochs, **(TRAINER | (trainer_arguments or {})))
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module, start


def parts(state, labeler):
    return {k: v for k, v in state.items() if "metrics" not in k and ("labeler" in k) == labeler and v.ndim > 0}


@pytest.mark.parametrize("fused", [False, True])
def test_both_networks_learn_and_report(fused):
    trainer, module, start = fit(fused=fused, aux_weight=0.5)
    for labeler in (True, False):
        after = parts(module.state_dict(), labeler)
        moved = [name for name, value in parts(start, labeler).items() if not torch.equal(value, after[name])]
        assert set(moved) == set(after)
    metrics = trainer.callback_metrics
    names = {"meta_loss", "entropy", "top_probability", "weight_mean", "weight_min", "weight_max"}
    assert {f"labels/{name}" for name in names} <= metrics.keys()
    assert 0.2 <= metrics["labels/top_probability"] <= 1
    assert metrics["labels/weight_min"] <= metrics["labels/weight_mean"] <= metrics["labels/weight_max"]
    assert trainer.global_step == 8  # of the main network


def test_the_second_pass_leaves_the_main_network():
    class Watched(MAXLModule):
        def finish_pass(self):
            before = parts(copy.deepcopy(self.state_dict()), labeler=False)
            super().finish_pass()
            after = parts(self.state_dict(), labeler=False)
            assert all(torch.equal(before[name], after[name]) for name in before)
            self.checked = True

    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = Watched(data.hierarchy, labeler=LabelNetwork(), depth=11, width=0.0625)
    L.Trainer(max_epochs=1, **TRAINER).fit(module, data)
    assert module.checked


def test_an_epoch_of_exact_steps_is_one_of_double_backward_steps():
    _, exact, _ = fit(epochs=1)
    _, reference, _ = fit(epochs=1, hypergradient=DoubleBackward())
    for name, value in exact.label_network.state_dict().items():
        torch.testing.assert_close(value, reference.label_network.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_schedules_are_stepped():
    trainer, _, _ = fit(
        epochs=2,
        optimizer=partial(SGD, lr=0.1),
        scheduler=partial(StepLR, step_size=1, gamma=0.1),
        label_scheduler=partial(StepLR, step_size=1, gamma=0.5),
    )
    main, label = trainer.optimizers
    assert main.param_groups[0]["lr"] == pytest.approx(1e-3)
    assert label.param_groups[0]["lr"] == pytest.approx(2.5e-4)


def test_a_plateau_schedule_waits_for_validation():
    recipe = {"optimizer": partial(SGD, lr=0.1), "scheduler": partial(ReduceLROnPlateau, patience=0, threshold=100)}
    trainer, _, _ = fit(epochs=2, label_scheduler=partial(ReduceLROnPlateau, patience=0, threshold=100), **recipe)
    # With such a threshold nothing counts as better: both rates fall at each of two epochs.
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-3)
    assert trainer.optimizers[1].param_groups[0]["lr"] == pytest.approx(1e-5)
    with pytest.raises(InputError, match="ReduceLROnPlateau"):
        fit(epochs=1, trainer_arguments={"limit_val_batches": 0}, **recipe)


def test_the_smallest_and_the_largest_weight_of_the_epoch_are_logged():
    seen = []

    class Watched(LabelNetwork):
        def generate(self, batch, features=None):
            target = super().generate(batch, features)
            if target.weight.requires_grad:
                seen.append(target.weight.detach())
            return target

    trainer, _, _ = fit(epochs=1, labeler=Watched(weighted=True))
    weights = torch.cat(seen)
    assert trainer.callback_metrics["labels/weight_min"] == pytest.approx(float(weights.min()))
    assert trainer.callback_metrics["labels/weight_max"] == pytest.approx(float(weights.max()))


def test_an_own_primary_loss_is_looked_through():
    class Silent(MAXLModule):
        def primary_losses(self, logits, batch):
            return 0 * super().primary_losses(logits, batch)

    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = Silent(data.hierarchy, depth=11, width=0.0625)
    trainer = L.Trainer(max_epochs=1, **TRAINER)
    trainer.fit(module, data)
    assert trainer.callback_metrics["labels/meta_loss"] == 0


@pytest.mark.parametrize("fused", [False, True])
def test_a_resumed_run_ends_where_the_uninterrupted_one_does(fused, tmp_path):
    recipe = {
        "fused": fused,
        "optimizer": partial(SGD, lr=0.05, momentum=0.9),
        "scheduler": partial(StepLR, step_size=1),
        "label_optimizer": partial(SGD, lr=0.01, momentum=0.9),
    }
    _, whole, _ = fit(epochs=3, **recipe)
    trainer, _, _ = fit(epochs=2, **recipe)
    trainer.save_checkpoint(tmp_path / "after_two.ckpt")
    _, resumed, _ = fit(epochs=3, ckpt_path=tmp_path / "after_two.ckpt", **recipe)
    for name, value in whole.state_dict().items():
        assert "metrics" in name or torch.equal(value, resumed.state_dict()[name]), name


def test_a_run_that_ends_before_the_second_pass_gets_a_warning():
    with pytest.warns(UserWarning, match=r"each epoch of 4 batches, but the run has only 3 steps.*`fused: true`"):
        _, module, start = fit(epochs=-1, trainer_arguments={"max_steps": 3})
    learning = dict(module.labelled_task.labeler.named_parameters())
    assert learning and all(torch.equal(p, start[f"tasks.0.labeler.{name}"]) for name, p in learning.items())


def test_a_control_is_not_trained():
    with pytest.raises(InputError, match=r"MAXLModule trains its label network. Found `untrained`"):
        fit(labeler=LabelNetwork(untrained=True))


def test_without_a_seed_draws_are_the_users(monkeypatch):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    ends = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        data = DigitsDataModule(num_train=200, batch_size=50)
        module = DroppingAlone(data.hierarchy, labeler=UniformLabels(), depth=11, width=0.0625)
        L.Trainer(max_epochs=1, **TRAINER).fit(module, data)
        ends.append(torch.get_rng_state())
    assert not torch.equal(*ends)


def test_sharded_parameters_are_refused(monkeypatch):
    monkeypatch.setattr("auxlight.modules.checks.holds_whole_parameters", lambda strategy: False)
    with pytest.raises(InputError, match=r"MAXLModule needs whole parameters.*Found SingleDeviceStrategy"):
        fit(epochs=1)


class Dropping(MAXLModule):
    """With dropout behind its trunk."""

    def features(self, image):
        return nn.functional.dropout(super().features(image), 0.5, self.training)


class DroppingAlone(MultiHeadVGG):
    """The same with one optimizer."""

    def features(self, image):
        return nn.functional.dropout(super().features(image), 0.5, self.training)


@pytest.mark.parametrize("kind", [DroppingAlone, Dropping])
def test_a_resumed_run_draws_the_same_dropout(kind, tmp_path):
    """Wherever the generators stood when it was taken up."""

    def run(epochs, ckpt_path=None):
        L.seed_everything(0, verbose=False)
        data = DigitsDataModule(num_train=200, batch_size=50)
        labeler = LabelNetwork() if kind is Dropping else UniformLabels()
        module = kind(data.hierarchy, labeler=labeler, depth=11, width=0.0625)
        torch.rand(epochs)
        trainer = L.Trainer(max_epochs=epochs, **TRAINER)
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return trainer, {name: value.clone() for name, value in module.state_dict().items() if "metrics" not in name}

    _, whole = run(3)
    run(2)[0].save_checkpoint(tmp_path / "after_two.ckpt")
    _, resumed = run(3, tmp_path / "after_two.ckpt")
    assert [name for name, value in whole.items() if not torch.equal(value, resumed[name])] == []


def test_bf16_works_and_fp16_is_refused():
    trainer, _, _ = fit(epochs=1, trainer_arguments={"precision": "bf16-mixed"})
    assert torch.isfinite(trainer.callback_metrics["labels/meta_loss"])
    with pytest.raises(InputError, match=r"no loss scaling.*bf16-mixed"):
        fit(epochs=1, trainer_arguments={"precision": "16-true"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeler": HumanLabels()}, "must be a LabelNetwork. Found HumanLabels"),
        ({"lookahead_lr": 0.0}, "`lookahead_lr` must be positive"),
        ({"lookahead_lr": -1.0}, "`lookahead_lr` must be positive"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        MAXLModule((2, 3), depth=11, width=0.0625, **arguments)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(InputError, match="`temperature`"):
        LabelNetwork(temperature=0.0)
