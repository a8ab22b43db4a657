import copy
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.optim import SGD

from auxlight import (
    AgentLabels,
    AuxiLearnModule,
    AuxiliaryClassifier,
    AuxiliaryTask,
    DigitsDataModule,
    ExemplarTask,
    HumanLabels,
    InputError,
    LabelNetwork,
    MAXLModule,
    RLAuxCallback,
    RotationTask,
)
from tests.modules.bilevel import Trunk, assert_equal
from tests.quiet import TRAINER


def make(lr=0.1, tasks=None, labeler=True, data=None, **arguments):
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(**{"num_labelled": 100, "num_train": 400, "batch_size": 40} | (data or {}))
    tasks = [RotationTask()] if tasks is None else tasks
    arguments |= {"tasks": tasks, "optimizer": partial(SGD, lr=lr), "labeler": HumanLabels() if labeler else None}
    return AuxiliaryClassifier(data.hierarchy, arguments.pop("trunk", None) or Trunk(), **arguments), data


def fit(module, data, epochs=1, ckpt_path=None, **trainer):
    trainer = L.Trainer(max_epochs=epochs, **TRAINER | trainer)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


def focal(logits, label):
    power = np.exp(logits.detach().double().numpy())
    p = (power / power.sum(1, keepdims=True))[range(len(label)), label]
    return -((1 - p) ** 2) * np.log(p)


def test_primary_and_labelled_losses_are_those_of_the_labelled_images_alone():
    module, data = make(tasks=[RotationTask(0.5), ExemplarTask(3.0)], aux_weight=2.0)
    truth = data.load_split(True)
    batch = data.pipeline(next(iter(data.train_dataloader())))
    features, logits, losses, loss = module.step(batch)
    features, logits, index = features[:20], logits[:20], batch.index[:20]
    assert logits.shape == (20, 2)
    primary = focal(logits, truth.primary[index].numpy())
    labelled = focal(module.tasks[0].head(features), truth.auxiliary[index].numpy())
    np.testing.assert_allclose(losses.primary.detach(), primary, rtol=1e-4)
    np.testing.assert_allclose(losses.auxiliary[0].detach(), labelled, rtol=1e-4)
    rotation, exemplar = losses.auxiliary[1:]
    assert rotation.shape == exemplar.shape == (40,)
    means = [part.detach().double().numpy().mean() for part in (rotation, exemplar)]
    expected = primary.mean() + 2 * labelled.mean() + 2 * 0.5 * means[0] + 2 * 3 * means[1]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_training_metrics_count_labelled_images_alone():
    """Without a step the network is the same throughout, so that the epoch can be gone through again."""
    module, data = make(lr=0.0, trunk=nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten()), feature_dim=48)
    metrics = {name: value.item() for name, value in fit(module, data).callback_metrics.items()}
    truth = data.load_split(True)
    losses, right, right_digit, all_right = [], [], [], []
    with torch.no_grad():
        for batch in map(data.pipeline, data.train_dataloader()):
            features = module.trunk(batch.image)
            logits = module.primary_head(features)
            label, digit = truth.primary[batch.index], truth.auxiliary[batch.index]
            losses += focal(logits, label.numpy())[:20].tolist()
            guess, digit_guess = logits.argmax(1), module.tasks[0].head(features).argmax(1)
            right += (guess == label)[:20].tolist()
            all_right += (guess == label).tolist()
            right_digit += (digit_guess == digit)[:20].tolist()
    assert len(losses) == len(right) == 300  # as many as unlabelled ones: each of the hundred three times
    assert metrics["train/primary_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["train/accuracy"] == pytest.approx(np.mean(right), abs=1e-6)
    assert metrics["train/auxiliary_accuracy"] == pytest.approx(np.mean(right_digit), abs=1e-6)
    assert abs(np.mean(all_right) - np.mean(right)) > 1e-3
    parts = ("primary", "labelled", "rotation")
    assert metrics["train/loss"] == pytest.approx(sum(metrics[f"train/{name}_loss"] for name in parts), rel=1e-5)


def test_every_part_learns_and_validation_has_all_labels():
    module, data = make(tasks=[RotationTask(), ExemplarTask()])
    start = copy.deepcopy(module.state_dict())
    trainer = fit(module, data, epochs=3)
    assert trainer.global_step == 3 * 15
    same = [name for name, _ in module.named_parameters() if torch.equal(module.state_dict()[name], start[name])]
    assert same == []
    (tested,) = trainer.validate(module, data, verbose=False)
    module.eval()
    with torch.no_grad():
        guesses = torch.cat([module(data.pipeline(raw).image).argmax(1) for raw in data.val_dataloader()])
    truth = data.load_split(True).primary[torch.cat([raw.index for raw in data.val_dataloader()])]
    assert len(truth) == 144
    assert tested["val/accuracy"] == pytest.approx((guesses == truth).float().mean().item(), abs=1e-6)


def test_tasks_without_labels_learn_from_unlabelled_images():
    """Images whose labels are hidden reach the trunk by these tasks alone."""
    module, data = make(tasks=[RotationTask(), ExemplarTask()], trunk=None)
    batch = data.pipeline(next(iter(data.train_dataloader())))
    image = batch.image.clone().requires_grad_()
    module.trunk.layers[1] = nn.Identity()  # batch norm would mix the images of a batch
    features = module.features(image)
    losses = module.task_losses(features, module.primary_head(features), batch._replace(image=image))
    for part, reaches in (
        (losses.primary, False),
        (losses.auxiliary[0], False),
        (losses.auxiliary[1], True),
        (losses.auxiliary[2], True),
    ):
        (gradient,) = torch.autograd.grad(part.sum(), image, retain_graph=True)
        seen = gradient.flatten(1).abs().sum(1) > 0
        assert seen[:20].all() and seen[20:].tolist() == [reaches] * 20


class Drawing(AuxiliaryTask):
    """Draws a number in each step."""

    draws = True

    def __init__(self):
        super().__init__()
        self.drawn = []

    def forward(self, trunk, features, batch):
        self.drawn.append(torch.rand(()).item())
        return features.square().mean(1), features.new_ones(len(features))


def test_each_step_of_a_task_has_draws_of_its_own():
    """The labelled images come round often; draws that were a function of one of them alone would as well."""
    tasks = [Drawing(), Drawing()]
    module, data = make(tasks=tasks, data={"num_labelled": 10, "batch_size": 20})
    fit(module, data, epochs=2, limit_val_batches=0)
    state = torch.get_rng_state()
    fit(*make(data={"num_labelled": 10, "batch_size": 20}), epochs=2, limit_val_batches=0)
    assert torch.equal(torch.get_rng_state(), state)  # they have left no trace in the generator
    drawn = [value for task in tasks for value in task.drawn]
    assert len(drawn) == len(set(drawn)) == 2 * 2 * 39


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path):
    recipe = {"tasks": [RotationTask(), ExemplarTask()]}
    every_epoch = ModelCheckpoint(tmp_path, "{epoch}", save_top_k=-1)
    whole, data = make(**copy.deepcopy(recipe))
    fit(whole, data, 3, limit_val_batches=0, enable_checkpointing=True, callbacks=[every_epoch])
    resumed, data = make(**recipe)
    trainer = fit(resumed, data, 3, ckpt_path=tmp_path / "epoch=1.ckpt", limit_val_batches=0)
    assert trainer.current_epoch == 3
    assert_equal(whole, resumed)


# --- methods that label every training image

LABELLED = {"num_labelled": 100, "num_train": 400, "batch_size": 40}


@pytest.mark.parametrize(
    "kind", [MAXLModule, partial(MAXLModule, fused=True), AuxiLearnModule], ids=["MAXL", "fused", "AuxiLearn"]
)
def test_bilevel_modules_refuse_hidden_labels(kind):
    data = DigitsDataModule(**LABELLED, meta_split=0.2)
    module = kind(data.hierarchy, trunk=Trunk(), labeler=LabelNetwork(trunk=Trunk()))
    name = type(module).__name__
    with pytest.raises(InputError, match=f"{name} labels every training image.*Found num_labelled=100: leave it out"):
        fit(module, data)


@pytest.mark.parametrize("online", [False, True])
def test_the_agent_refuses_hidden_labels(online):
    data = DigitsDataModule(**LABELLED)
    module = AuxiliaryClassifier(data.hierarchy, Trunk(), labeler=AgentLabels(trunk=Trunk()))
    with pytest.raises(InputError, match=r"RLAuxCallback.*labels every training image.*num_labelled=100: leave it out"):
        fit(module, data, callbacks=[RLAuxCallback(online=online)])
