import copy
import dataclasses
from functools import partial

import lightning as L
import pytest
import torch
from torch.optim import SGD

from auxlight import AuxiLearnModule, Batch, InputError, LabelNetwork
from auxlight.functional import batch_entropy, focal_loss
from auxlight.hypergradient import NeumannGradient
from auxlight.modules.joint_losses import JointLosses
from tests.modules.bilevel import TRAINER, Trunk, assert_all_moved, assert_resumes, fit, indices, one_label_step

HELD_OUT = {"num_train": 120, "meta_split": 1 / 3, "batch_size": 20}  # 4 training batches, 2 held-out ones


class Recorded(AuxiLearnModule):
    """Notes the images of both levels, and at which steps the label network moved."""

    def __init__(self, *args, **arguments):
        super().__init__(*args, **arguments)
        self.trained, self.looked, self.judged, self.moved = [], [], [], []

    def training_step(self, batch, batch_idx):
        before = copy.deepcopy(dict(self.label_network.named_parameters()))
        loss = super().training_step(batch, batch_idx)
        self.trained.append(batch)
        after = dict(self.label_network.named_parameters())
        if any(not torch.equal(value, after[name]) for name, value in before.items()):
            self.moved.append(self.trainer.global_step)
        return loss

    def problem(self, batches, targets):
        problem = super().problem(batches, targets)
        self.looked.append(problem.batches)
        self.judged.append(problem.meta)
        return problem


@pytest.mark.parametrize(("interval", "steps"), [(1, [*range(1, 13)]), (3, [3, 6, 9, 12]), (5, [5, 10])])
def test_the_label_network_steps_at_its_interval_and_never_between(interval, steps):
    trainer, module, _ = fit(Recorded, 3, label_interval=interval, data=HELD_OUT)
    assert trainer.global_step == 12  # of the main network, over three epochs
    assert module.moved == steps and len(module.looked) == len(steps)


def test_an_interval_longer_than_the_run_gets_a_warning():
    with pytest.warns(UserWarning, match=r"every 20 steps, but the run has only 12.*Lower `label_interval`"):
        _, module, _ = fit(Recorded, 3, label_interval=20, data=HELD_OUT)
    assert module.moved == []


def test_labels_are_judged_on_held_out_images_and_another_training_batch():
    trainer, module, start = fit(Recorded, 2, label_interval=2, data=HELD_OUT)
    assert_all_moved(module, start)
    held_out, training = (set(indices(trainer.datamodule.loader(split))) for split in ("meta", "train"))
    assert [len(batches) for batches in (*module.looked, *module.judged)] == [1] * 8
    assert set(indices(module.trained)) == training
    for (looked,), (judged,), trained in zip(module.looked, module.judged, module.trained[1::2], strict=True):
        assert len(looked.index) == len(judged.index) == 20
        assert set(looked.index.tolist()) <= training and set(judged.index.tolist()) <= held_out
        assert set(looked.index.tolist()) != set(trained.index.tolist())
    assert held_out.isdisjoint(training)
    for first in (0, 2):  # two steps an epoch, without an image twice
        assert {i for judged in module.judged[first : first + 2] for i in indices(judged)} == held_out
        assert len({i for looked in module.looked[first : first + 2] for i in indices(looked)}) == 40


@pytest.mark.parametrize("terms", [0, 3])
@pytest.mark.parametrize("damping", [0.0, 0.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_label_networks_gradient_is_the_written_out_series(terms, damping, weighted):
    """−∇L_A · η Σ_j (I − η(H + δI))^j · ∂∇(L_pri + λ·L_aux)/∂φ, with H row by row over all main parameters."""
    batch, held_out = (
        Batch(torch.randn(8, 3, 8, 8, dtype=torch.float64), torch.arange(8) % 2, None, torch.arange(8))
        for _ in range(2)
    )

    class Judged(AuxiLearnModule):
        def problem(self, batches, targets):
            return dataclasses.replace(super().problem(batches, targets), meta=[held_out])

    module = Judged(
        (2, 3),
        trunk=Trunk(4),
        labeler=LabelNetwork(weighted=weighted, trunk=Trunk(4)),
        hypergradient=NeumannGradient(terms, 0.2, damping),
        label_interval=1,
        aux_weight=0.7,
        entropy_weight=0.3,
        label_optimizer=partial(SGD, lr=1.0),
    ).double()
    again = copy.deepcopy(module)
    got = one_label_step(module, [batch])

    network, target = JointLosses(again), again.label_network.generate(batch)
    theta, phi = list(network.parameters()), dict(again.label_network.named_parameters())
    assert {id(p) for p in theta}.isdisjoint(map(id, phi.values()))
    assert len(theta) + len(phi) == len(list(again.parameters()))

    def flat(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, theta, create_graph=True, allow_unused=False)])

    features = again.trunk(batch.image)
    auxiliary = focal_loss(network.auxiliary_head(features), target.probabilities, 2.0)
    primary = focal_loss(network.primary_head(features), batch.primary, 2.0)
    slope = flat(primary.mean() + 0.7 * (target.weight * auxiliary).mean())
    unit = torch.eye(len(slope), dtype=torch.float64)
    rows = torch.autograd.grad(slope, theta, unit, retain_graph=True, is_grads_batched=True)
    hessian = torch.cat([row.flatten(1) for row in rows], 1)
    torch.testing.assert_close(hessian, hessian.T)
    judged = focal_loss(network.primary_head(again.trunk(held_out.image)), held_out.primary, 2.0).mean()
    slopes = torch.autograd.grad(judged, theta, materialize_grads=True)
    contraction = unit - 0.2 * (hessian + damping * unit)
    series = 0.2 * sum(torch.linalg.matrix_power(contraction, j) for j in range(terms + 1))
    direction = -series @ torch.cat([g.flatten() for g in slopes])
    expected = torch.autograd.grad(slope @ direction + 0.3 * batch_entropy(target.probabilities), list(phi.values()))
    assert got.keys() == phi.keys()
    for name, value in zip(phi, expected, strict=True):
        torch.testing.assert_close(got[name], value, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("arguments", [{"vgg": True}, {"labels": {"shared_trunk": True}}], ids=["VGG", "shared"])
def test_both_networks_learn_and_report(arguments):
    trainer, module, start = fit(AuxiLearnModule, label_interval=2, data={"meta_split": 0.2}, **arguments)
    assert_all_moved(module, start)
    metrics = trainer.callback_metrics
    names = {"meta_loss", "entropy", "top_probability", "weight_mean", "weight_min", "weight_max"}
    assert {f"labels/{name}" for name in names} <= metrics.keys()
    assert metrics["labels/meta_loss"].isfinite()


def test_recomputed_labels_change_nothing():
    ends = [
        fit(AuxiLearnModule, label_interval=2, data=HELD_OUT, dropout=0.5, recompute_labels=recompute)[1].state_dict()
        for recompute in (False, True)
    ]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_run_taken_up_at_an_epoch_ends_where_the_whole_one_does(tmp_path):
    recipe = {"optimizer": partial(SGD, lr=0.05, momentum=0.9), "label_optimizer": partial(SGD, lr=0.1, momentum=0.9)}
    assert_resumes(AuxiLearnModule, tmp_path, label_interval=3, data=HELD_OUT, **recipe)  # astride the epochs


# --- what is refused


def test_data_without_held_out_images_are_refused():
    with pytest.raises(InputError, match=r"Found meta_split=0: set `data\.meta_split` to their share.*\.$"):
        fit(AuxiLearnModule)


@pytest.mark.parametrize("label_interval", [0, -1])
def test_an_interval_below_one_is_refused(label_interval):
    with pytest.raises(InputError, match=rf"^`label_interval` must be at least 1. Found {label_interval=}\.$"):
        AuxiLearnModule((2, 3), trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()), label_interval=label_interval)


def test_an_auxlight_data_module_is_needed():
    module = AuxiLearnModule((2, 3), trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()))
    with pytest.raises(InputError, match=r"^AuxiLearnModule draws images .* auxlight data module\. Found none"):
        L.Trainer(max_epochs=1, **TRAINER).fit(module, torch.utils.data.DataLoader(torch.zeros(2, 1)))


def test_half_precision_without_loss_scaling_is_refused():
    with pytest.raises(InputError, match="AuxiLearnModule has no loss scaling"):
        fit(AuxiLearnModule, data=HELD_OUT, trainer={"precision": "16-true"})
