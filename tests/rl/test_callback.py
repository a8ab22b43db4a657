import copy
import random
from functools import partial

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from stable_baselines3 import PPO
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR, StepLR

from auxlight import (
    AgentLabels,
    DigitsDataModule,
    ExemplarTask,
    HumanLabels,
    InputError,
    MultiHeadVGG,
    RLAuxCallback,
    RotationTask,
)
from auxlight.rl import BatchReward, PaperPPO
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.player import Player
from tests.quiet import TRAINER


def state_of(trainer, module):
    """Everything that belongs to the main network, and the generators."""
    return {
        "network": {k: v.clone() for k, v in module.state_dict().items() if "labeler" not in k},
        "modes": [part.training for part in module.modules()],
        "optimizer": copy.deepcopy(trainer.optimizers[0].state_dict()),
        "schedulers": [copy.deepcopy(config.scheduler.state_dict()) for config in trainer.lr_scheduler_configs],
        "torch": torch.get_rng_state(),
        "numpy": np.random.get_state(),
        "random": random.getstate(),
        "seed": torch.initial_seed(),
    }


def assert_equal(one, other, path="state"):
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), path
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{path}[{i}]")
    elif isinstance(one, torch.Tensor | np.ndarray):
        assert np.array_equal(np.asarray(one), np.asarray(other)), path
    elif hasattr(one, "__dict__") and callable(one):
        pass  # OneCycleLR keeps its annealing function in its state
    else:
        assert one == other, path


class MeasuringReward(BatchReward):
    """Checks what a measurement leaves behind, and that the step before it moved the network."""

    moved = 0

    def before_step(self, learner, evaluation):
        before = state_of(learner.trainer, learner.module)
        learner.primary_loss(evaluation)
        assert_equal(state_of(learner.trainer, learner.module), before)
        return before["network"]

    def after_step(self, learner, batch, target, evaluation, before):
        after = state_of(learner.trainer, learner.module)["network"]
        self.moved += not torch.equal(after["primary_head.0.weight"], before["primary_head.0.weight"])
        return super().after_step(learner, batch, target, evaluation, before)


class Checked(RLAuxCallback):
    """The callback, with the state around each agent epoch."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.around = []
        self.policies = []

    def on_train_epoch_start(self, trainer, module):
        agent = {k: v.clone() for k, v in module.labelled_task.labeler.network.state_dict().items()}
        before = state_of(trainer, module)
        super().on_train_epoch_start(trainer, module)
        self.around.append((before, state_of(trainer, module)))
        self.policies.append((agent, copy.deepcopy(module.labelled_task.labeler.network.state_dict())))


def make_module(data, kind=MultiHeadVGG, **arguments):
    arguments = {"labeler": AgentLabels(weighted=True, feature_dim=16)} | arguments
    return kind(data.hierarchy, depth=11, width=0.0625, **arguments)


def fit(callback=None, epochs=2, seed=0, ckpt_path=None, extra=(), kind=MultiHeadVGG, **arguments):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    names = ("accumulate_grad_batches", "precision", "gradient_clip_val", "max_steps")
    trainer_arguments = {name: arguments.pop(name) for name in names if name in arguments}
    module = make_module(data, kind, **arguments)
    callback = callback or RLAuxCallback(reward=BatchReward(batch_size=64))
    own = {"enable_checkpointing": bool(extra)}
    trainer = L.Trainer(max_epochs=epochs, callbacks=[callback, *extra], **(TRAINER | own | trainer_arguments))
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module


@pytest.mark.parametrize(
    "recipe",
    [
        {"optimizer": partial(SGD, lr=0.05)},
        {
            "optimizer": partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-3),
            "scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=8),
            "scheduler_interval": "step",
        },
        {"optimizer": partial(AdamW, lr=1e-3), "scheduler": partial(StepLR, step_size=1)},
    ],
    ids=["sgd", "momentum+onecycle", "adamw+step"],
)
def test_after_the_agents_epoch_everything_is_as_it_was(recipe):
    reward = MeasuringReward(batch_size=64)
    callback = Checked(reward=reward)
    fit(callback, **recipe)
    assert reward.moved == 8  # two epochs of four batches: in between the network really trained
    assert len(callback.around) == 2
    for before, after in callback.around:
        assert_equal(after, before)


def test_every_parameter_of_the_policy_moves_in_its_epoch_and_rests_in_the_main_one():
    callback = Checked(reward=BatchReward(batch_size=64))
    _, module = fit(callback)
    for before, after in callback.policies:
        for name in before:
            assert not torch.equal(before[name], after[name]), name
    at_end = module.labelled_task.labeler.network.state_dict()
    assert_equal(dict(at_end), dict(callback.policies[-1][1]))


def test_the_main_network_learns_from_the_agents_labels():
    labels = []

    class Watched(AgentLabels):
        def forward(self, batch, features):
            target = super().forward(batch, features)
            if self.training:
                actions = self.actions.target(self.network.act(batch.image), batch.primary)
                labels.append((target, actions))
            return target

    fit(labeler=Watched(weighted=True, feature_dim=16), epochs=1)
    assert len(labels) == 4
    for target, acted in labels:
        assert_equal(tuple(target), tuple(acted))


def test_a_step_of_the_game_is_a_step_of_lightning():
    """With the agent's own labels, the learner's step and Lightning's end at the same weights."""
    recipe = {"optimizer": partial(SGD, lr=0.05, momentum=0.9)}

    class ByLearner(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            labeler = module.labelled_task.labeler
            target = labeler(batch, module.features(batch.image))
            learner = ModuleLearner(trainer, module, labeler)
            learner.snapshot()
            learner.train_on(batch, target)
            self.after = {k: v.clone() for k, v in module.state_dict().items() if "metrics" not in k}
            learner.restore()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            actual = {k: v for k, v in module.state_dict().items() if "metrics" not in k}
            assert_equal(actual, self.after)
            self.checked = True

    callback = ByLearner()
    # BatchNorm statistics move in the callback's forward passes too; the learner restores them.
    fit(callback, epochs=1, labeler=AgentLabels(untrained=True, feature_dim=16), **recipe)
    assert callback.checked


def test_a_step_of_the_game_is_one_for_tasks_that_keep_books():
    """An exemplar task's teacher follows in the game as outside of it."""

    class Told(RotationTask):
        def __init__(self):
            super().__init__()
            self.calls = 0

        def before_step(self, trunk):
            self.calls += 1

    tasks = [Told(), ExemplarTask()]
    callback = Checked(reward=BatchReward(batch_size=64))
    fit(callback, epochs=1, tasks=tasks)
    assert tasks[0].calls == 4 + 4  # of the game and of the main epoch
    (before, after), *_ = callback.around
    assert_equal(after, before)  # the teacher is put back


@pytest.mark.parametrize("online", [False, True])
def test_the_agent_plays_no_more_than_is_left_of_max_steps(online, monkeypatch):
    """A schedule by steps, which ends with the run, would refuse more."""
    schedule = {"scheduler": partial(OneCycleLR, max_lr=0.1, total_steps=6), "scheduler_interval": "step"}
    reward, reports, report = Counted(batch_size=64), [], Player.report
    monkeypatch.setattr(Player, "report", lambda player: reports.append(report(player)) or reports[-1])
    trainer, _ = fit(RLAuxCallback(reward=reward, online=online), epochs=-1, max_steps=6, **schedule)
    assert trainer.global_step == 6 and reward.steps == 4 + 2
    assert ["value_loss" in found for found in reports] == [True, True]  # in the last epoch, too, the agent learned


class Counted(BatchReward):
    """Counts the steps that it rewards."""

    steps = 0

    def after_step(self, *arguments):
        self.steps += 1
        return super().after_step(*arguments)


def test_same_seed_same_weights_other_seed_other_weights():
    (_, one), (_, same), (_, other) = fit(seed=3), fit(seed=3), fit(seed=4)
    assert_equal(dict(one.state_dict()), dict(same.state_dict()))
    assert not torch.equal(one.primary_head[0].weight, other.primary_head[0].weight)


def test_a_resumed_run_ends_where_the_uninterrupted_one_does(tmp_path):
    recipe = {"optimizer": partial(SGD, lr=0.05, momentum=0.9), "scheduler": partial(StepLR, step_size=1)}
    _, whole = fit(epochs=3, **recipe)
    trainer, _ = fit(epochs=2, **recipe)
    path = tmp_path / "after_two.ckpt"
    trainer.save_checkpoint(path)
    torch.load(path, weights_only=True)  # nothing in it needs unpickling
    _, resumed = fit(epochs=3, ckpt_path=path, **recipe)
    expected = {k: v for k, v in whole.state_dict().items() if "metrics" not in k}
    assert_equal({k: v for k, v in resumed.state_dict().items() if "metrics" not in k}, expected)


def test_the_agent_plays_each_epoch_once_wherever_a_run_resumes(tmp_path):
    """Lightning leaves out `on_train_epoch_start` after a checkpoint from the last batch of an epoch."""
    recipe = {"optimizer": partial(SGD, lr=0.05)}
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=2, save_top_k=-1)
    _, whole = fit(epochs=3, extra=[keep], **recipe)
    for step in (2, 4, 6, 8):
        _, resumed = fit(epochs=3, ckpt_path=tmp_path / f"step={step}.ckpt", **recipe)
        assert resumed.labelled_task.labeler.epochs_played == 3
        if step % 4 == 0:  # inside an epoch the loader starts again at its first batch
            expected = {k: v for k, v in whole.state_dict().items() if "metrics" not in k}
            assert_equal({k: v for k, v in resumed.state_dict().items() if "metrics" not in k}, expected)


def test_one_callback_serves_several_fits(tmp_path):
    callback = RLAuxCallback(reward=BatchReward(batch_size=64))
    _, first = fit(callback, epochs=1)
    trainer, second = fit(callback, epochs=1)
    assert_equal(dict(second.state_dict()), dict(first.state_dict()))
    path = tmp_path / "after_one.ckpt"
    trainer.save_checkpoint(path)
    _, resumed = fit(callback, epochs=2, ckpt_path=path)
    _, whole = fit(epochs=2)
    expected = {k: v for k, v in whole.state_dict().items() if "metrics" not in k}
    assert_equal({k: v for k, v in resumed.state_dict().items() if "metrics" not in k}, expected)


def test_the_state_outlives_a_test_and_a_resume_inside_an_epoch(tmp_path):
    callback = RLAuxCallback(reward=BatchReward(batch_size=64))
    trainer, module = fit(callback, epochs=1)
    before = copy.deepcopy(callback.state_dict())
    trainer.test(module, DigitsDataModule(batch_size=50), verbose=False)
    assert_equal(callback.state_dict(), before)
    waiting = RLAuxCallback()
    waiting.load_state_dict(before)
    assert_equal(waiting.state_dict(), before)  # although there is no agent yet


def test_an_own_step_is_played_too():
    class Still(MultiHeadVGG):
        def step(self, batch):
            outputs = super().step(batch)
            return outputs._replace(loss=0 * outputs.loss)

    reward = MeasuringReward(batch_size=64)
    fit(RLAuxCallback(reward=reward), epochs=1, kind=Still)
    assert reward.moved == 0


@pytest.mark.parametrize(
    ("trainer_arguments", "callback_arguments", "message"),
    [
        ({"accumulate_grad_batches": 2}, {}, "accumulate_grad_batches=2"),
        ({}, {"agent": partial(PPO, n_steps=4, learning_rate=lambda left: 1e-3 * left)}, "constant rates.*lr_schedule"),
        ({}, {"agent": partial(PaperPPO, n_steps=0)}, "`n_steps` of the agent"),
        ({}, {"agent": partial(PaperPPO, batch_size=1)}, "`batch_size` of the agent must be at least 2"),
        ({}, {"agent": partial(PaperPPO, gamma=2.0)}, "`gamma` of the agent"),
        ({}, {"agent": partial(PaperPPO, learning_rate=-1.0)}, "`learning_rate` of the agent"),
        ({}, {"agent": partial(PPO, n_steps=2, batch_size=1)}, "`agent` does not take its arguments"),
        ({"precision": "64-true"}, {}, "computes in float32"),
    ],
)
def test_what_the_game_cannot_honour_is_refused(trainer_arguments, callback_arguments, message):
    with pytest.raises(InputError, match=message):
        fit(RLAuxCallback(**callback_arguments), epochs=1, **trainer_arguments)


def test_gradients_that_are_accumulated_later_are_refused():
    with pytest.raises(InputError, match="Found GradientAccumulationScheduler"):
        fit(extra=[GradientAccumulationScheduler({1: 2})])


def test_two_callbacks_are_refused():
    class Other(RLAuxCallback):
        pass

    with pytest.raises(InputError, match="keep one"):
        fit(extra=[Other()])


@pytest.mark.parametrize("arguments", [{"precision": "bf16-mixed"}, {"gradient_clip_val": 0.5}])
def test_after_the_agents_epoch_everything_is_as_it_was_under(arguments):
    callback = Checked(reward=MeasuringReward(batch_size=64))
    fit(callback, epochs=1, **arguments)
    for before, after in callback.around:
        assert_equal(after, before)


def test_an_interrupted_agent_epoch_leaves_the_canonical_network():
    class Failing(BatchReward):
        def after_step(self, learner, batch, target, evaluation, before):
            raise RuntimeError("lost power")

    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = make_module(data)
    before = copy.deepcopy(module.state_dict())
    trainer = L.Trainer(max_epochs=1, callbacks=[RLAuxCallback(reward=Failing(batch_size=8))], **TRAINER)
    with pytest.raises(RuntimeError, match="lost power"):
        trainer.fit(module, data)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_another_algorithm_and_its_arguments():
    callback = RLAuxCallback(agent=partial(PaperPPO, n_steps=2, n_epochs=1), reward=BatchReward(batch_size=64))
    trainer, _ = fit(callback, epochs=1)
    metrics = trainer.callback_metrics
    assert {"agent/reward", "agent/value_loss", "train/weight_mean"} <= metrics.keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labeler": HumanLabels()}, "labeler HumanLabels"),
        ({"labeler": None}, "AgentLabels"),
    ],
)
def test_a_module_without_agent_labels_is_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        fit(**arguments)


def test_an_off_policy_algorithm_is_refused():
    class NoAgent:
        def __init__(self, policy, env, device):
            pass

    with pytest.raises(InputError, match="on-policy"):
        fit(RLAuxCallback(agent=NoAgent))


def test_foreign_data_is_refused():
    data = DigitsDataModule(num_train=200, batch_size=50)
    trainer = L.Trainer(max_epochs=1, callbacks=[RLAuxCallback()], **TRAINER)
    with pytest.raises(InputError, match="data module"):
        trainer.fit(make_module(data), data.train_dataloader())
