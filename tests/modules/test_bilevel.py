import copy
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.utils import parameters_to_vector
from torch.optim import LBFGS, SGD
from torch.optim.lr_scheduler import ExponentialLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from auxlight import (
    AuxiLearnModule,
    Batch,
    Combiner,
    DigitsDataModule,
    HumanLabels,
    InputError,
    LabelNetwork,
    MAXLModule,
    UniformLabels,
    WeightedSum,
)
from auxlight.hypergradient import DoubleBackward, LookAheadGradient, NeumannGradient
from auxlight.modules.joint_losses import JointLosses
from tests.modules.bilevel import TRAINER, Trunk, assert_all_moved, assert_equal, assert_resumes, fit, indices, state

DOUBLE = {"precision": "64-true"}
FAST = {"label_optimizer": partial(SGD, lr=1.0)}  # so that a wrong gradient shows
PASSES = pytest.mark.parametrize("fused", [False, True], ids=["two passes", "fused"])


class Recorded(MAXLModule):
    """Notes the images of both levels and every step of either network."""

    def __init__(self, *args, **arguments):
        super().__init__(*args, **arguments)
        self.trained, self.looked, self.judged, self.seeds = [], [], [], []
        self.main_steps, self.label_steps = [], []

    def main_vector(self):
        return parameters_to_vector(JointLosses(self).parameters()).detach().clone()

    def label_vector(self):
        return parameters_to_vector(self.label_network.parameters()).detach().clone()

    def training_step(self, batch, batch_idx):
        before = self.main_vector()
        loss = super().training_step(batch, batch_idx)
        self.trained.append(batch)
        self.main_steps.append(self.main_vector() - before)
        return loss

    def problem(self, batches, targets):
        problem = super().problem(batches, targets)
        self.looked.append(problem.batches)
        self.judged.append(problem.meta)
        self.seeds.append(problem.seed)
        return problem

    def learn(self, batches, targets, meta):
        before = self.label_vector()
        super().learn(batches, targets, meta)
        self.label_steps.append(self.label_vector() - before)


# --- the real step as the look-ahead


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"optimizer": partial(SGD, lr=0.05, momentum=0.9, nesterov=True)},
        {"optimizer": partial(SGD, lr=0.05, momentum=0.9, dampening=0.5)},
        {"scheduler": partial(ExponentialLR, gamma=0.5), "scheduler_interval": "step"},
        {"dropout": 0.5},
        {"dropout": 0.5, "labels": {"shared_trunk": True}, "data": {"meta_split": 0.2}},
        {"vgg": True, "optimizer": partial(SGD, lr=0.05, momentum=0.9, weight_decay=0.01)},
    ],
    ids=["plain", "nesterov", "damped", "scheduler", "dropout", "shared and held out", "momentum and decay"],
)
def test_the_step_that_is_taken_is_the_step_looked_ahead(arguments, monkeypatch):
    calls = []
    original = LookAheadGradient.__call__
    monkeypatch.setattr(LookAheadGradient, "__call__", lambda *args: calls.append(1) or original(*args))
    recipe = FAST | {"fused": True, "aux_weight": 0.5, "trainer": DOUBLE}
    ends = []
    for reused in (True, False):
        if not reused:
            monkeypatch.setattr(MAXLModule, "_step_is_the_look_ahead", lambda _: False)
        _, module, start = fit(MAXLModule, **recipe | arguments)
        assert_all_moved(module, start)
        assert bool(calls) is not reused
        ends.append(state(module))
    torch.testing.assert_close(*ends, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "reused"),
    [
        ({"optimizer": partial(SGD, lr=0.1, momentum=0.9)}, True),
        ({"lookahead_lr": 0.01}, False),
        ({"clip_grad_norm": 1.0}, False),
        ({"optimizer": partial(torch.optim.Adam, lr=1e-3)}, False),
        ({"hypergradient": DoubleBackward()}, False),
    ],
    ids=["SGD", "another rate", "clipped", "Adam", "another estimator"],
)
def test_another_step_than_the_look_aheads_is_not_reused(arguments, reused, monkeypatch):
    calls = []
    original = LookAheadGradient.of_steps
    monkeypatch.setattr(LookAheadGradient, "of_steps", lambda self, *rest: calls.append(1) or original(self, *rest))
    monkeypatch.setattr(LookAheadGradient, "__call__", DoubleBackward().__call__)
    fit(MAXLModule, fused=True, trainer={"limit_train_batches": 1}, **arguments)
    assert bool(calls) is reused


def test_a_schedule_by_step_leaves_the_label_networks_by_epoch():
    schedules = {"scheduler": partial(ExponentialLR, gamma=0.5), "label_scheduler": partial(ExponentialLR, gamma=0.1)}
    trainer, _, _ = fit(MAXLModule, fused=True, scheduler_interval="step", **schedules)
    rates = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]
    assert rates == pytest.approx([0.01 * 0.5**4, 1e-3 * 0.1])


# --- labels twice instead of their graph


@pytest.mark.parametrize(
    "arguments",
    [
        {"dropout": 0.5},
        {"dropout": 0.5, "lookahead_steps": 2},
        {"dropout": 0.5, "fused": True},
        {"labels": {"shared_trunk": True}},
        {"labels": {"shared_trunk": True}, "fused": True},
    ],
    ids=["two passes", "two steps ahead", "fused", "shared", "shared and fused"],
)
def test_recomputed_labels_change_nothing(arguments):
    ends = []
    for recompute in (False, True):
        _, module, start = fit(MAXLModule, recompute_labels=recompute, **FAST, **arguments)
        assert_all_moved(module, start)
        ends.append(state(module))
    assert_equal(*ends)


# --- a shared trunk


@PASSES
def test_a_label_network_on_the_main_trunk_learns(fused):
    _, module, start = fit(MAXLModule, vgg=True, fused=fused, labels={"shared_trunk": True})
    assert_all_moved(module, start)
    assert not any("labeler.trunk" in name for name in start)


@pytest.mark.parametrize("recompute_labels", [False, True])
def test_the_second_pass_of_a_shared_trunk_leaves_the_main_network_and_its_statistics(recompute_labels):
    class Watched(MAXLModule):
        def finish_pass(self):
            before = state(self)
            super().finish_pass()
            changed = {name for name, value in state(self).items() if not torch.equal(value, before[name])}
            assert changed and all(".labeler." in name for name in changed)
            self.checked = True

    _, module, _ = fit(Watched, labels={"shared_trunk": True}, recompute_labels=recompute_labels)
    assert module.checked


# --- held-out images

HELD_OUT = {"num_train": 120, "meta_split": 1 / 3, "batch_size": 20}  # 4 training batches, 2 held-out ones


@PASSES
def test_labels_are_judged_on_images_that_nothing_trains_on(fused):
    trainer, module, start = fit(Recorded, 2, fused=fused, data=HELD_OUT)
    assert_all_moved(module, start)
    held_out = set(indices(trainer.datamodule.loader("meta")))
    assert len(held_out) == 40 and len(module.judged) == 8
    assert all(len(meta) == 1 and len(meta[0].index) == 20 for meta in module.judged)
    passes = [indices([*one, *two]) for one, two in zip(module.judged[::2], module.judged[1::2], strict=True)]
    assert all(sorted(images) == sorted(held_out) for images in passes)
    assert len({tuple(images) for images in passes}) == 4  # each pass in an order of its own
    assert held_out.isdisjoint(indices(module.trained))
    assert held_out.isdisjoint(i for batches in module.looked for i in indices(batches))


@PASSES
def test_without_held_out_images_labels_are_judged_on_those_of_the_step(fused):
    _, module, _ = fit(Recorded, fused=fused)
    assert [indices(meta) for meta in module.judged] == [indices(batches) for batches in module.looked]
    assert len(module.judged) == 4


def test_a_held_out_split_smaller_than_a_batch_is_one_batch():
    _, module, _ = fit(Recorded, data={"meta_split": 0.1})
    assert {len(meta[0].index) for meta in module.judged} == {20}


@PASSES
def test_runs_of_one_seed_are_equal(fused):
    first, second, other = (fit(Recorded, seed=seed, fused=fused, data=HELD_OUT)[1] for seed in (1, 1, 2))
    assert_equal(first, second)
    orders = [[indices(meta) for meta in module.judged] for module in (first, second, other)]
    assert orders[0] == orders[1] != orders[2]
    assert first.seeds == second.seeds and len({*first.seeds, *other.seeds}) == 8  # of the dropout masks


@PASSES
def test_a_run_taken_up_at_an_epoch_ends_where_the_whole_one_does(fused, tmp_path):
    assert_resumes(
        MAXLModule,
        tmp_path,
        fused=fused,
        data=HELD_OUT,
        optimizer=partial(SGD, lr=0.05, momentum=0.9),
        scheduler=partial(ExponentialLR, gamma=0.9),
        scheduler_interval="step",
        label_optimizer=partial(SGD, lr=0.1, momentum=0.9),
        label_scheduler=partial(ExponentialLR, gamma=0.5),
    )


def test_a_second_fit_has_held_out_images_of_its_own():
    _, module, _ = fit(Recorded, data=HELD_OUT)
    data = DigitsDataModule(**HELD_OUT, seed=5)
    module.judged = []
    L.Trainer(max_epochs=1, **TRAINER).fit(module, data)
    assert {i for meta in module.judged for i in indices(meta)} <= set(indices(data.loader("meta")))


def test_a_trained_module_can_be_copied():
    _, module, _ = fit(MAXLModule, data=HELD_OUT)
    assert_equal(copy.deepcopy(module), module)


# --- several steps ahead


def test_two_steps_ahead_halve_the_steps_of_the_label_network():
    _, module, start = fit(Recorded, 2, lookahead_steps=2)
    assert_all_moved(module, start)
    assert len(module.trained) == 8 and len(module.label_steps) == 4
    assert [len(batches) for batches in module.looked] == [2] * 4
    for first in (0, 2):  # an epoch of the second pass, too, shows every image once
        assert len({i for batches in module.looked[first : first + 2] for i in indices(batches)}) == 200


def test_two_exact_steps_ahead_are_two_of_double_backward():
    recipe = {"vgg": True, "data": {"meta_split": 0.2}, "trainer": DOUBLE, "lookahead_steps": 2} | FAST
    ends = [fit(MAXLModule, hypergradient=kind, **recipe)[1] for kind in (LookAheadGradient(), DoubleBackward())]
    torch.testing.assert_close(*map(state, ends), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("arguments", [{"lookahead_steps": 0}, {"lookahead_steps": 2, "fused": True}], ids=str)
def test_a_look_ahead_of_no_step_or_of_several_at_once_is_refused(arguments):
    with pytest.raises(InputError, match=rf"`lookahead_steps`.*lookahead_steps={arguments['lookahead_steps']}"):
        MAXLModule((2, 3), trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), **arguments)


def test_a_main_pass_of_more_batches_than_the_second_does_not_end_the_fit():
    class Halved(DigitsDataModule):
        def train_dataloader(self):
            return self.loader("train", train=True, batch_size=self.batch_size // 2)

    data = Halved(num_train=40, batch_size=20)
    module = MAXLModule(data.hierarchy, trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()))
    trainer = L.Trainer(max_epochs=2, **TRAINER)
    trainer.fit(module, data)
    assert trainer.current_epoch == 2


def test_a_checkpoint_of_an_epochs_last_step_holds_the_second_pass(tmp_path):
    def run(epochs, ckpt_path=None, callbacks=()):
        L.seed_everything(0, verbose=False)
        data = DigitsDataModule(num_train=80, batch_size=20)
        schedules = dict.fromkeys(("scheduler", "label_scheduler"), partial(ExponentialLR, gamma=0.5))
        module = MAXLModule(data.hierarchy, trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), **schedules, **FAST)
        trainer = L.Trainer(max_epochs=epochs, **(TRAINER | {"enable_checkpointing": True}), callbacks=list(callbacks))
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return state(module)

    whole = run(2, callbacks=[ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)])
    resumed = run(2, tmp_path / "step=4.ckpt", callbacks=[ModelCheckpoint(tmp_path / "again")])
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_plateau_schedule_goes_on_from_between_validation_and_the_end_of_an_epoch(tmp_path):
    def run(ckpt_path=None, **where):
        L.seed_everything(0, verbose=False)
        data = DigitsDataModule(num_train=80, batch_size=20)
        plateau = partial(ReduceLROnPlateau, factor=0.5, patience=0, threshold=100)
        module = MAXLModule(data.hierarchy, trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), scheduler=plateau)
        saves = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1, save_on_train_epoch_end=False, **where)
        options = TRAINER | {"enable_checkpointing": True, "limit_val_batches": 1.0}
        trainer = L.Trainer(max_epochs=2, **options, callbacks=[saves])
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return state(module), trainer.optimizers[0].param_groups[0]["lr"]

    (whole, rate), (resumed, same) = run(), run(tmp_path / "epoch=0.ckpt", every_n_epochs=10)
    assert rate == same
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_images_without_a_class_are_refused_from_any_loader():
    data = DigitsDataModule(num_train=80, batch_size=20)
    data.setup()
    data.trainer = None
    batches = [data.on_after_batch_transfer(raw, 0) for raw in data.train_dataloader()]
    batches[0].primary[3] = -1
    module = MAXLModule(data.hierarchy, trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), fused=True)
    with pytest.raises(InputError, match="labels every training image by its primary class"):
        L.Trainer(max_epochs=1, **TRAINER).fit(
            module, DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)
        )


class Averaged(nn.Module):
    """Its statistics are a new tensor after each batch."""

    def __init__(self):
        super().__init__()
        self.inner = Trunk()
        self.feature_dim = self.inner.feature_dim
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, image):
        self.seen = self.seen + 1
        return self.inner(image)


@pytest.mark.parametrize("labels", [{"shared_trunk": True}, {"trunk": Averaged()}])
def test_statistics_that_are_assigned_anew_are_left_alone_as_well(labels):
    data = DigitsDataModule(num_train=80, batch_size=20)
    module = MAXLModule(data.hierarchy, trunk=Averaged(), labeler=LabelNetwork(**labels), recompute_labels=True)
    L.Trainer(max_epochs=1, **TRAINER).fit(module, data)
    assert module.trunk.seen == 4
    if "trunk" in labels:
        assert labels["trunk"].seen == 8  # once for each pass


def test_half_precision_weights_are_refused():
    with pytest.raises(InputError, match=r"network's small steps vanish.*bf16-mixed"):
        fit(MAXLModule, trainer={"precision": "bf16-true"})


def test_one_trunk_for_both_networks_is_refused():
    trunk = Trunk()
    with pytest.raises(InputError, match=r"parameters of its own.*shared_trunk: true"):
        MAXLModule((2, 3), trunk=trunk, labeler=LabelNetwork(trunk=trunk))


# --- size of the label network's step


def at_two_rates(**arguments):
    """Ends of two runs: one term of the Neumann series is η times a gradient, and powers of two scale exactly."""
    ends = []
    for eta in (2.0**-8, 2.0**-4):
        _, module, start = fit(MAXLModule, hypergradient=NeumannGradient(0, eta), **FAST, **arguments)
        assert_all_moved(module, start)
        ends.append(state(module))
    return ends


@PASSES
def test_a_normalized_gradient_does_not_depend_on_the_rate_of_the_step(fused):
    torch.testing.assert_close(*at_two_rates(fused=fused, normalize_hypergradient=True), rtol=1e-6, atol=1e-7)


def test_another_gradient_does():
    one, other = at_two_rates()
    assert max(float((one[name] - other[name]).abs().max()) for name in one if "labeler" in name) > 1e-5


@pytest.mark.parametrize("meta_split", [0.0, 0.2])
def test_normalized_steps_are_finite_and_much_larger(meta_split):
    sizes = []
    for normalize in (False, True):
        recipe = {"entropy_weight": 0.0, "normalize_hypergradient": normalize, "data": {"meta_split": meta_split}}
        _, module, _ = fit(Recorded, label_optimizer=partial(SGD, lr=1e-3), **recipe)
        steps = torch.stack(module.label_steps)
        assert steps.isfinite().all()
        sizes.append(steps.norm(dim=1))
    assert (sizes[1] > 10 * sizes[0]).all()


@PASSES
def test_clipping_bounds_the_steps_of_each_network(fused):
    recipe = {"fused": fused, "optimizer": partial(SGD, lr=0.5), "normalize_hypergradient": True} | FAST
    _, free, _ = fit(Recorded, **recipe)
    _, clipped, _ = fit(Recorded, clip_grad_norm=1e-2, label_clip_grad_norm=1e-3, **recipe)
    for name, bound in (("main_steps", 0.5 * 1e-2), ("label_steps", 1e-3)):
        before, after = (torch.stack(getattr(module, name)).norm(dim=1) for module in (free, clipped))
        assert (before > 2 * bound).all()
        torch.testing.assert_close(after, torch.full_like(after, bound), rtol=1e-3, atol=0)


def test_a_gradient_within_the_bound_is_left_as_it_is():
    _, free, _ = fit(MAXLModule)
    _, bounded, _ = fit(MAXLModule, clip_grad_norm=1e6, label_clip_grad_norm=1e6)
    assert_equal(free, bounded)


# --- what is refused


class Doubled(WeightedSum):
    def forward(self, losses, context):
        return 2 * super().forward(losses, context)


class PrimaryAlone(Combiner):
    def forward(self, losses, context):
        return losses.primary.mean()


@pytest.mark.parametrize("kind", [MAXLModule, AuxiLearnModule])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labeler": HumanLabels()},
            "`labeler` of {} must be a LabelNetwork. Found HumanLabels: MultiHeadVGG takes it.",
        ),
        (
            {"labeler": UniformLabels()},
            "`labeler` of {} must be a LabelNetwork. Found UniformLabels: MultiHeadVGG takes it.",
        ),
        ({"combiner": PrimaryAlone}, "`combiner` of {} must be the WeightedSum.*Found PrimaryAlone."),
        ({"combiner": Doubled}, "`combiner` of {} must be the WeightedSum.*Found Doubled."),
        ({"clip_grad_norm": 0.0}, "`clip_grad_norm` must be positive.*=0.0."),
        ({"clip_grad_norm": -1.0}, "`clip_grad_norm` must be positive.*=-1.0."),
        ({"label_clip_grad_norm": 0.0}, "`label_clip_grad_norm` must be positive.*=0.0."),
        ({"label_clip_grad_norm": float("nan")}, "`label_clip_grad_norm` must be positive.*=nan."),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(kind, arguments, message):
    arguments = {name: value() if isinstance(value, type) else value for name, value in arguments.items()}
    with pytest.raises(InputError, match=f"^{message.format(kind.__name__)}$"):
        kind((2, 3), **{"trunk": Trunk(), "labeler": LabelNetwork(trunk=Trunk())} | arguments)


@PASSES
def test_half_precision_without_loss_scaling_is_refused(fused):
    with pytest.raises(InputError, match=r"^MAXLModule has no loss scaling.*precision=16-true.*bf16-mixed or 32\.$"):
        fit(MAXLModule, fused=fused, trainer={"precision": "16-true"})


class Foreign(L.LightningDataModule):
    def train_dataloader(self):
        size = 10
        batch = Batch(torch.randn(size, 3, 8, 8), torch.arange(size) % 2, None, torch.arange(size))
        return torch.utils.data.DataLoader([batch] * 3, batch_size=None)


@pytest.mark.parametrize("data", [Foreign(), Foreign().train_dataloader()], ids=["data module", "loader"])
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*has no `val_dataloader`")
def test_two_passes_need_an_auxlight_data_module_and_one_does_not(data):
    def train(**arguments):
        module = Recorded((2, 3), trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), **arguments)
        L.Trainer(max_epochs=1, **TRAINER).fit(module, data)
        return module

    with pytest.raises(InputError, match=r"^Recorded draws images .* needs an auxlight data module. Found none: .*\.$"):
        train()
    assert len(train(fused=True).label_steps) == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_entropy_weight_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match="`entropy_weight` must be a finite number"):
        MAXLModule((2, 3), trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), entropy_weight=value)


def test_without_a_labeler_the_label_network_is_made():
    assert isinstance(MAXLModule((2, 3), depth=11, width=0.0625, labeler=None).label_network, LabelNetwork)


def test_an_optimizer_of_several_gradients_is_refused():
    with pytest.raises(InputError, match="Found LBFGS"):
        fit(MAXLModule, optimizer=LBFGS)
