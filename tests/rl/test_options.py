import copy
from functools import partial

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from sb3_contrib import TRPO, MaskablePPO, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.buffers import RolloutBuffer
from torch.optim import LBFGS, SGD
from torch.utils.tensorboard import SummaryWriter

from auxlight import (
    VGG,
    AgentLabels,
    AuxiliaryClassifier,
    AuxiliaryTarget,
    BatchReward,
    DigitsDataModule,
    ExemplarTask,
    ImprovementReward,
    InfluenceReward,
    InputError,
    MultiHeadVGG,
    RLAuxCallback,
    SLGrad,
)
from auxlight.combiners import WeightedSum
from auxlight.networks.buffers import evaluation_mode
from auxlight.rl import PaperPPO
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.player import EpochMeans
from auxlight.seeding import isolated_rng
from tests.quiet import TRAINER
from tests.rl.test_callback import assert_equal, state_of

STEPS = 4  # in an epoch
BATCH = partial(BatchReward, 32)
REWARDS = {
    "batch": BATCH,
    "improvement": partial(ImprovementReward, 32),
    "influence": partial(InfluenceReward, 32),
    "held out": partial(ImprovementReward, 32, held_out=True),
}
EYES = {
    "own": {},
    "own, label shown": {"sees_primary": True},
    "shared": {"shared_trunk": True},
    "shared, label shown": {"shared_trunk": True, "sees_primary": True, "block_relative": True},
    "snapshot": {"shared_trunk": True, "snapshot": True},
}


class Watched(MultiHeadVGG):
    """Remembers the targets that its training steps were taken on, and counts its trunk's forward passes."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.targets = []
        self.forwards = 0
        self.trunk.register_forward_hook(self.count)
        self.labelled_task.labeler.register_forward_hook(self.remember)

    def count(self, *_):
        self.forwards += torch.is_grad_enabled()

    def remember(self, labeler, arguments, target):
        if labeler.training:
            self.targets.append(target)


class Around(L.Callback):
    """The state around whatever the agent does at the start of an epoch; stands in front of its callback."""

    def on_train_epoch_start(self, trainer, module):
        self.before = state_of(trainer, module)
        self.agent = copy.deepcopy(module.labelled_task.labeler.network.state_dict())

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if batch_idx == 0:
            self.after = state_of(trainer, module)


def fit(epochs=1, ckpt_path=None, labeler=None, kind=Watched, module_arguments=None, extra=(), **options):
    L.seed_everything(0, verbose=False)
    held_out = getattr(options.get("reward"), "held_out", False)
    data = DigitsDataModule(num_train=250 if held_out else 200, batch_size=50, meta_split=0.2 if held_out else 0.0)
    labeler = AgentLabels(weighted=True, feature_dim=16, **(labeler or {}))
    arguments = {"optimizer": partial(SGD, lr=0.05, momentum=0.9)} | (module_arguments or {})
    module = kind(data.hierarchy, depth=11, width=0.0625, labeler=labeler, **arguments)
    gamma = 0.0 if isinstance(options.get("reward"), InfluenceReward) else 0.99
    options = {"agent": partial(PaperPPO, n_epochs=2, gamma=gamma), "reward": BATCH()} | options
    callback, around = RLAuxCallback(**options), Around()
    trainer = L.Trainer(max_epochs=epochs, callbacks=[around, callback, *extra], **TRAINER)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module, callback, around


@pytest.mark.parametrize("reset", ["epoch", "batch"])
@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("reward", REWARDS)
def test_the_agent_learns_and_the_network_is_put_back(reward, eyes, reset):
    trainer, module, _, around = fit(reward=REWARDS[reward](), labeler=EYES[eyes], reset=reset)
    assert_equal(around.after, around.before)
    for name, value in module.labelled_task.labeler.network.state_dict().items():
        assert not torch.equal(value, around.agent[name]), name
    assert trainer.global_step == len(module.targets) == STEPS
    logged = {"agent/reward", "agent/value_loss", "agent/label_entropy", "agent/labels_inside", "agent/weight_max"}
    assert logged <= trainer.callback_metrics.keys()


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("reward", REWARDS)
def test_online_the_agent_learns_and_the_network_trains_on_what_it_explores(reward, eyes):
    trainer, module, _, around = fit(reward=REWARDS[reward](), labeler=EYES[eyes], online=True)
    labeler = module.labelled_task.labeler
    for name, value in labeler.network.state_dict().items():
        assert not torch.equal(value, around.agent[name]), name
    assert trainer.global_step == len(module.targets) == STEPS
    assert torch.stack([target.weight for target in module.targets]).unique().numel() > 10  # of 21: by chance
    assert {"agent/reward", "agent/value_loss", "agent/explained_variance"} <= trainer.callback_metrics.keys()
    assert labeler.explorer is None and labeler.epochs_played == 1
    assert not any(parameter.requires_grad for parameter in labeler.network.parameters())


RESUMED = {
    "paper": ("own", "improvement", {}),
    "shared": ("shared", "improvement", {}),
    "every second epoch": ("shared", "influence", {"every_n_epochs": 2}),
    "snapshot": ("snapshot", "influence", {"every_n_epochs": 2}),
    "snapshot online": ("snapshot", "influence", {"online": True, "epoch_fraction": 0.5}),
    "half an epoch by batch": ("own, label shown", "held out", {"epoch_fraction": 0.5, "reset": "batch"}),
    "online": ("own", "improvement", {"online": True}),
    "online, half": ("shared, label shown", "influence", {"online": True, "epoch_fraction": 0.5}),
    "A2C": ("shared", "batch", {"agent": partial(A2C, n_steps=2)}),
    "A2C online": ("shared", "influence", {"agent": partial(A2C, n_steps=2, gamma=0.0), "online": True}),
}


@pytest.mark.parametrize("kind", RESUMED)
def test_a_resumed_run_ends_where_the_whole_one_does(kind, tmp_path):
    eyes, reward, options = RESUMED[kind]

    def run(**arguments):
        return fit(labeler=EYES[eyes], reward=REWARDS[reward](), **options, **arguments)

    _, whole, *_ = run(epochs=3)
    trainer, *_ = run(epochs=2)
    trainer.save_checkpoint(tmp_path / "two.ckpt")
    torch.load(tmp_path / "two.ckpt", weights_only=True)
    _, resumed, *_ = run(epochs=3, ckpt_path=tmp_path / "two.ckpt")
    assert_equal(*({k: v for k, v in m.state_dict().items() if "metrics" not in k} for m in (resumed, whole)))


def test_shared_eyes_cost_no_forward_pass_of_the_trunk():
    def forwards(**options):
        return fit(reward=BATCH(), **options)[1].forwards

    # Eight steps: four of the agent's and four of the main network's. The first batch of the episode that SB3 begins
    # after the last is seen in vain.
    assert forwards(labeler=EYES["own"]) == 2 * STEPS
    assert forwards(labeler=EYES["shared"]) == 2 * STEPS + 1
    assert forwards(labeler=EYES["shared"], online=True) == STEPS


def test_the_agent_plays_as_often_as_asked_for():
    played = {
        "each": ({}, 4),
        "second": ({"every_n_epochs": 2}, 2),
        "before": ({"pretrain_epochs": 2}, 6),
        "online": ({"online": True, "every_n_epochs": 3}, 2),
    }
    for options, expected in played.values():
        _, module, *_ = fit(epochs=4, **options)
        assert module.labelled_task.labeler.epochs_played == expected
        assert len(module.targets) == 4 * STEPS


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(("fraction", "steps"), [(0.01, 1), (0.5, 2), (0.75, 3), (1.0, 4)])
def test_a_fraction_of_an_epoch(fraction, steps, online):
    _, module, callback, _ = fit(epoch_fraction=fraction, online=online, epochs=2)
    assert callback.player.num_timesteps == 2 * steps * 50
    assert len(module.targets) == 2 * STEPS
    spread = [bool(target.weight.unique().numel() > 5) for target in module.targets]
    assert sum(spread) == (2 * steps if online else 0)  # of 21 levels, by chance; the most probable ones are few


def test_an_online_agents_steps_lie_evenly_among_the_others():
    _, module, *_ = fit(epoch_fraction=0.5, online=True)
    assert [bool(target.weight.unique().numel() > 5) for target in module.targets] == [True, False, True, False]


def test_every_fit_begins_with_the_pretraining():
    callback = RLAuxCallback(partial(PaperPPO, n_epochs=1), BATCH(), pretrain_epochs=2)
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels(feature_dim=16))
    for played in (3, 6):
        L.Trainer(max_epochs=1, callbacks=[callback], **TRAINER).fit(module, data)
        assert module.labelled_task.labeler.epochs_played == played


def test_an_online_agent_goes_on_where_a_run_was_cut_inside_an_epoch(tmp_path):
    class Cut(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 6:
                trainer.save_checkpoint(tmp_path / "inside.ckpt")

    fit(epochs=2, online=True, extra=[Cut()])
    _, module, callback, _ = fit(epochs=2, online=True, ckpt_path=tmp_path / "inside.ckpt")
    assert len(module.targets) == 2
    assert all(target.weight.unique().numel() > 5 for target in module.targets)  # explored
    assert callback.player.num_timesteps == (6 + 2) * 50
    assert module.labelled_task.labeler.epochs_played == 2


class Compared(ImprovementReward):
    """Whether the loss that it takes for the one before a step is that loss."""

    def __init__(self):
        super().__init__(32)
        self.errors = []

    def before_step(self, learner, evaluation):
        before = super().before_step(learner, evaluation)
        self.errors.append(abs(before - learner.primary_loss(evaluation)))
        return before


@pytest.mark.parametrize("options", [{}, {"reset": "batch"}, {"online": True}, {"online": True, "epoch_fraction": 0.5}])
@pytest.mark.parametrize("eyes", ["own", "shared"])
def test_improvement_is_over_the_network_right_before_the_step(eyes, options):
    reward = Compared()
    fit(labeler=EYES[eyes], reward=reward, epochs=2, **options)
    assert len(reward.errors) >= 4 and max(reward.errors) == 0


@pytest.mark.parametrize("n_steps", [1, 3])
@pytest.mark.parametrize("algorithm", [PaperPPO, A2C])
def test_an_online_agent_learns_from_what_its_present_policy_did(algorithm, n_steps):
    """Before each update the policy gives every action of the rollout the probability that it was chosen with."""
    differences = []

    def agent(*arguments, **options):
        made = algorithm(*arguments, **options, n_steps=n_steps)
        train = made.train

        def checked():
            buffer = made.rollout_buffer
            for row in range(made.n_steps):
                actions = torch.as_tensor(buffer.actions[row])
                _, log_probabilities, _ = made.policy.evaluate_actions(
                    torch.as_tensor(buffer.observations[row]), actions
                )
                stored = torch.as_tensor(buffer.log_probs[row])
                differences.append(float((log_probabilities.detach() - stored).abs().max()))
            train()

        made.train = checked
        return made

    fit(agent=agent, online=True, epochs=2)
    assert len(differences) == 2 * STEPS and max(differences) < 1e-5


class Averaging(Watched):
    """Keeps averages in buffers: one written in place, one put in the place of the last, one that begins as nothing."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.register_buffer("in_place", torch.zeros(()))
        self.register_buffer("replaced", torch.zeros(()))
        self.register_buffer("begun", None)

    def step(self, batch):
        outputs = super().step(batch)
        loss = outputs.loss.detach()
        self.in_place.mul_(0.9).add_(0.1 * loss)
        self.replaced = 0.9 * self.replaced + 0.1 * loss
        self.begun = loss if self.begun is None else self.begun + loss
        return outputs


def test_averages_in_buffers_are_put_back():
    _, module, _, around = fit(kind=Averaging)
    assert_equal(around.after, around.before)
    assert around.before["network"]["replaced"] == 0 and "begun" not in around.before["network"]
    assert module.replaced != 0 and module.in_place == module.replaced


class Dropping(Watched):
    """Dropout between trunk and heads' losses."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.trunk.layers.add_module("dropout", torch.nn.Dropout(0.5))


class TwoPasses(Watched):
    """Another pass of the trunk before the step's own."""

    def step(self, batch):
        self.features(batch.image.flip(-1))
        return super().step(batch)


class DroppingTwice(Dropping):
    """Dropout in the heads as well."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.primary_head.add_module("dropout", torch.nn.Dropout(0.3))
        self.labelled_task.head.add_module("dropout", torch.nn.Dropout(0.3))


class Averager(torch.nn.Module):
    """Puts a new average of what it sees in the place of the last."""

    def __init__(self):
        super().__init__()
        self.register_buffer("average", torch.zeros(()))
        self.register_buffer("first", None)

    def forward(self, value):
        self.average = 0.9 * self.average + 0.1 * value.detach().mean()
        self.first = value.detach()[0].clone() if self.first is None else self.first
        return value


class AveragingTrunk(Watched):
    """An average in the trunk."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.trunk.layers.add_module("average", Averager())


class Neck(Watched):
    """Features behind another layer with batch norm."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.neck = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.BatchNorm1d(32))

    def features(self, image):
        return self.neck(super().features(image))


class MixedUp(Watched):
    """A step on other images than the batch's."""

    def step(self, batch):
        return super().step(batch._replace(image=0.5 * batch.image + 0.5 * batch.image.flip(0)))


class Teaching(Watched):
    """A task that moves a teacher before each step, and notes how often."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, tasks=[ExemplarTask()], **options)


def in_step(kind, check):
    """Calls `check(trainer, module, labeler, batch)` before the first step of a fit in double precision."""

    class Calling(L.Callback):
        called = False

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            check(trainer, module, module.labelled_task.labeler, batch)
            self.called = True

    callback = Calling()
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    labeler = AgentLabels(weighted=True, feature_dim=16, untrained=True)
    module = kind(data.hierarchy, depth=11, width=0.0625, labeler=labeler, optimizer=partial(SGD, lr=0.05))
    arguments = TRAINER | {"precision": "64-true", "limit_train_batches": 1}
    L.Trainer(max_epochs=1, callbacks=[callback], **arguments).fit(module, data)
    assert callback.called


@pytest.mark.parametrize("kind", [Watched, AveragingTrunk, TwoPasses, Neck, MixedUp, Teaching])
def test_a_step_that_the_agent_has_seen_the_features_of_is_the_same_step(kind):
    def check(trainer, module, labeler, batch):
        target = labeler.actions.target(torch.stack([batch.index % 10, batch.index % 21], 1), batch.primary)
        ends = []
        for seen in (False, True):
            learner = ModuleLearner(trainer, module, labeler)
            learner.snapshot()
            before = copy.deepcopy(module.state_dict())
            if seen:
                learner.features(batch)
                assert_equal(dict(module.state_dict()), dict(before))
            torch.manual_seed(0)  # of Exemplar's crops
            learner.train_on(batch, target)
            ends.append(copy.deepcopy(module.state_dict()))
            learner.restore()
            assert_equal(dict(module.state_dict()), dict(before))
        assert ends[0].keys() == ends[1].keys()
        for name, value in ends[0].items():
            torch.testing.assert_close(ends[1][name], value, rtol=1e-12, atol=1e-12, msg=name)
            if "running_mean" in name or name.endswith("average"):
                assert "labeler" in name or "teacher" in name or not torch.equal(value, before[name])

    in_step(kind, check)


@pytest.mark.parametrize("kind", [Watched, Dropping, DroppingTwice, TwoPasses])
@pytest.mark.parametrize("shared", [False, True])
def test_influence_is_that_of_the_step_that_was_taken(kind, shared):
    """Against a finite difference along all weights at once, with the same dropout masks."""

    def check(trainer, module, labeler, batch):
        evaluation = next(iter(trainer.datamodule.training_batches("evaluation", 0, 16)))
        chosen = torch.randint(10, (50, 2))
        target = AuxiliaryTarget(*(part.double() for part in labeler.actions.target(chosen, batch.primary)))
        along = torch.randn(50, dtype=torch.float64)

        def stepped(target):
            learner = ModuleLearner(trainer, module, labeler)
            learner.snapshot()
            if shared:
                learner.features(batch)
            before = learner.position()
            learner.train_on(batch, target)
            with torch.no_grad(), isolated_rng(before.seed + 1):  # the masks of the measurement
                loss = float(module.primary_losses(module(evaluation.image), evaluation).mean())
            influence = learner.influence(before, batch, target, evaluation)
            learner.restore()
            return loss, influence

        losses = [stepped(target._replace(weight=target.weight * (1 + s * 1e-4 * along)))[0] for s in (1, -1)]
        expected = -(losses[0] - losses[1]) / 2e-4
        assert float(stepped(target)[1] @ along) == pytest.approx(expected, rel=1e-4)

    in_step(kind, check)


def test_pretraining_is_not_repeated_by_a_resumed_run(tmp_path):
    trainer, *_ = fit(pretrain_epochs=2)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    _, module, *_ = fit(epochs=2, pretrain_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert module.labelled_task.labeler.epochs_played == 4


@pytest.mark.parametrize("agent", [partial(A2C, n_steps=2), partial(TRPO, n_steps=2, batch_size=50), PaperPPO])
@pytest.mark.parametrize("online", [False, True])
def test_other_algorithms(agent, online):
    trainer, module, callback, around = fit(agent=agent, online=online)
    assert isinstance(callback.player, getattr(agent, "func", agent))
    moved = [
        not torch.equal(value, around.agent[name])
        for name, value in module.labelled_task.labeler.network.state_dict().items()
    ]
    assert all(moved)
    assert {"agent/reward", "agent/explained_variance"} <= trainer.callback_metrics.keys()


def test_an_exported_agent_acts_the_same_elsewhere(tmp_path):
    _, module, callback, _ = fit()
    callback.export_agent(tmp_path / "agent.zip")
    image = torch.randn(20, 3, 32, 32)
    elsewhere = PaperPPO.load(tmp_path / "agent.zip")
    assert type(elsewhere) is PPO and elsewhere._last_obs is None
    actions, _ = elsewhere.predict(image.numpy(), deterministic=True)
    assert_equal(torch.as_tensor(actions), module.labelled_task.labeler.network.act(image))


def test_the_influence_of_an_image_is_what_its_weight_does():
    """Redo the step with one weight a little larger and a little smaller, and measure the primary loss."""

    class Redo(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            labeler = module.labelled_task.labeler
            learner = ModuleLearner(trainer, module, labeler)
            evaluation = next(iter(trainer.datamodule.training_batches("evaluation", 0, 16)))
            chosen = torch.randint(10, (len(batch.image), 2), generator=torch.Generator().manual_seed(batch_idx))
            target = AuxiliaryTarget(*(part.double() for part in labeler.actions.target(chosen, batch.primary)))
            learner.snapshot()

            def loss_after(target):
                learner.restore()
                learner.train_on(batch, target)
                with torch.no_grad():
                    return float(module.primary_losses(module(evaluation.image), evaluation).mean())

            before = learner.position()
            learner.train_on(batch, target)
            influence = learner.influence(before, batch, target, evaluation)
            for i in range(0, 50, 7):
                losses = []
                for factor in (1 + 1e-4, 1 - 1e-4):
                    weight = target.weight.clone()
                    weight[i] *= factor
                    losses.append(loss_after(target._replace(weight=weight)))
                expected = -(losses[0] - losses[1]) / 2e-4
                assert float(influence[i]) == pytest.approx(expected, rel=1e-4, abs=1e-10)
            learner.restore()
            self.checked = batch_idx

    callback = Redo()
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    labeler = AgentLabels(weighted=True, feature_dim=16, untrained=True)
    optimizer = partial(SGD, lr=0.05, momentum=0.9, weight_decay=1e-3)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler, optimizer=optimizer, aux_weight=0.7)
    arguments = TRAINER | {"precision": "64-true"}
    L.Trainer(max_epochs=1, limit_train_batches=2, callbacks=[callback], **arguments).fit(module, data)
    assert callback.checked == 1


@pytest.mark.parametrize("labeler", [{}, {"shared_trunk": True, "sees_primary": True}])
def test_a_run_starts_from_an_exported_agent(labeler, tmp_path):
    _, first, callback, _ = fit(labeler=labeler)
    callback.export_agent(tmp_path / "agent.zip")
    *_, around = fit(labeler=labeler, start_from=tmp_path / "agent.zip")
    assert_equal(dict(around.agent), dict(first.labelled_task.labeler.network.state_dict()))


def test_every_fit_but_a_resumed_one_starts_from_it(tmp_path):
    _, module, callback, _ = fit()
    callback.export_agent(tmp_path / "agent.zip")
    exported = copy.deepcopy(module.labelled_task.labeler.network.state_dict())
    torch.nn.init.ones_(module.labelled_task.labeler.network.value_head.bias)  # another agent by now
    data = DigitsDataModule(num_train=200, batch_size=50)
    starting = {"agent": partial(PaperPPO, n_epochs=2), "reward": BATCH(), "start_from": tmp_path / "agent.zip"}
    checkpoint = ModelCheckpoint(tmp_path, filename="first")
    for resumes in (False, True):
        around = Around()
        callbacks = [around, RLAuxCallback(**starting), checkpoint]
        before = copy.deepcopy(module.labelled_task.labeler.network.state_dict())
        trainer = L.Trainer(max_epochs=1 + resumes, callbacks=callbacks, **TRAINER | {"enable_checkpointing": True})
        trainer.fit(module, data, ckpt_path=tmp_path / "first.ckpt" if resumes else None)
        assert_equal(dict(around.agent), dict(before if resumes else exported))


@pytest.mark.parametrize("online", [False, True])
def test_frozen_eyes_stay_as_they_are(online):
    """Batch norm's statistics with them."""
    trunk = VGG(11, 0.0625, norm="batch")
    trunk.layers[:3].requires_grad_(False)
    frozen = {f"layers.{name}" for name in trunk.layers[:3].state_dict()}
    _, module, _, around = fit(labeler={"trunk": trunk}, online=online)
    for name, value in module.labelled_task.labeler.network.state_dict().items():
        assert torch.equal(value, around.agent[name]) == (name.removeprefix("eyes.") in frozen), name
    assert any("running_mean" in name for name in frozen)
    assert frozen and not any(p.requires_grad for p in module.labelled_task.labeler.network.parameters())


@pytest.mark.parametrize("online", [False, True])
def test_every_update_is_in_the_report(online, monkeypatch):
    """Also of an algorithm that by itself would only report each hundredth."""
    read = EpochMeans.read
    counts = []
    monkeypatch.setattr(
        EpochMeans, "read", lambda writer: counts.append(len(writer.values["value_loss"])) or read(writer)
    )
    fit(agent=partial(A2C, n_steps=1), online=online)
    assert counts == [STEPS]


def test_another_agents_file_is_refused(tmp_path):
    _, _, callback, _ = fit()
    callback.export_agent(tmp_path / "agent.zip")
    with pytest.raises(InputError, match=r"`start_from`.*Found eyes.weight of shape missing instead of \(32,\)"):
        fit(labeler={"shared_trunk": True}, start_from=tmp_path / "agent.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read as one"):
        fit(start_from=tmp_path / "broken.zip")
    with pytest.raises(InputError, match="fit first"):
        RLAuxCallback().export_agent(tmp_path / "none.zip")


class Doubled(WeightedSum):
    """Another combiner."""

    def forward(self, losses, context):
        return 2 * super().forward(losses, context)


def test_the_main_networks_own_trunk_is_refused():
    trunk = VGG(11, 0.0625)
    with pytest.raises(InputError, match="`trunk` of AgentLabels must have parameters of its own"):
        AuxiliaryClassifier((5, 5), trunk, labeler=AgentLabels(trunk=trunk))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RLAuxCallback(every_n_epochs=0), "`every_n_epochs` must be at least 1.*=0"),
        (lambda: RLAuxCallback(pretrain_epochs=-1), "`pretrain_epochs` must be at least 0.*=-1"),
        (lambda: RLAuxCallback(epoch_fraction=0), "`epoch_fraction` must lie"),
        (lambda: RLAuxCallback(epoch_fraction=1.5), "`epoch_fraction` must lie.*1.5"),
        (lambda: RLAuxCallback(online=True, reset="batch"), "online agent.*reset='batch'"),
        (lambda: RLAuxCallback(reset="step"), "`reset` must be 'epoch' or 'batch'"),
        (lambda: RLAuxCallback(reward="improvement"), "`reward` must be an auxlight.rl.Reward, .*Found str"),
        (lambda: RLAuxCallback(agent=DQN), "on-policy.*Found DQN"),
        (lambda: RLAuxCallback(agent=partial(SAC, gamma=0.9)), "on-policy.*Found SAC"),
        (lambda: fit(agent=RecurrentPPO), "common actor-critic policy.*lstm"),
        (lambda: fit(agent=partial(PaperPPO, ent_coef=float("nan"))), "`ent_coef` of the agent must be finite"),
        (lambda: fit(module_arguments={"optimizer": LBFGS}), "Found LBFGS"),
        (lambda: fit(module_arguments={"combiner": Doubled()}, reward=InfluenceReward()), "WeightedSum alone.*Doubled"),
        (lambda: BatchReward(entropy_weight=float("nan")), "`entropy_weight` of the reward must be finite"),
        (lambda: BatchReward(batch_size=0), "`batch_size` of the reward must be at least 1"),
        (lambda: ImprovementReward(evaluation_steps=0), "`evaluation_steps` of the reward"),
        (lambda: ImprovementReward(scale=0), "`scale` of the reward"),
        (lambda: AgentLabels(shared_trunk=True, trunk=torch.nn.Flatten()), "`shared_trunk`"),
        (lambda: AgentLabels(snapshot=True), "`snapshot` is of a shared trunk. Found shared_trunk=False"),
        (lambda: fit(labeler={"weight_exponents": (2.0, 1.0)}), r"`weight_exponents`.*\(2.0, 1.0\)"),
        (lambda: fit(labeler={"weight_levels": 1}), "`weight_levels` must be at least 2"),
        (lambda: RLAuxCallback(agent="PPO"), "`agent` must be a class.*Found 'PPO'"),
        (lambda: fit(agent=MaskablePPO), "`agent` does not take its arguments: Policy must subclass"),
        (lambda: fit(labeler={"trunk": torch.nn.Flatten()}), "`feature_dim`"),
    ],
)
def test_mistakes_get_a_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path):
    trainer, *_ = fit(agent=partial(A2C, n_steps=2))
    trainer.save_checkpoint(tmp_path / "a2c.ckpt")
    with pytest.raises(InputError, match="Found PaperPPO instead of A2C"):
        fit(epochs=2, ckpt_path=tmp_path / "a2c.ckpt")


@pytest.mark.parametrize("gamma", [0.0, 0.99])
def test_influence_with_a_discount_is_announced(gamma, recwarn):
    fit(reward=InfluenceReward(32), agent=partial(PaperPPO, n_epochs=1, gamma=gamma))
    said = [str(warning.message) for warning in recwarn if "discount" in str(warning.message)]
    assert len(said) == (gamma > 0) and all("gamma=0.99 of the agent: set it to 0" in one for one in said)


def test_online_nothing_ends_with_an_epoch(monkeypatch):
    """The main network goes on from there."""
    ends = []
    learn = RolloutBuffer.compute_returns_and_advantage

    def watched(buffer, last_values, dones):
        ends.append(bool(dones.any()))
        learn(buffer, last_values, dones)

    monkeypatch.setattr(RolloutBuffer, "compute_returns_and_advantage", watched)
    fit(online=True)
    assert ends == [False]


def test_a_loss_is_measured_in_full_precision_whatever_the_trainers():
    class Measuring(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            learner = ModuleLearner(trainer, module, module.labelled_task.labeler)
            with evaluation_mode(module), torch.no_grad():
                expected = float(module.primary_losses(module(batch.image), batch).mean())
            assert learner.primary_loss(batch) == pytest.approx(expected, rel=1e-6)
            self.checked = True

    callback = Measuring()
    data = DigitsDataModule(num_train=200, batch_size=50)
    labeler = AgentLabels(feature_dim=16, untrained=True)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler)
    arguments = TRAINER | {"precision": "bf16-mixed", "limit_train_batches": 1, "limit_val_batches": 0}
    L.Trainer(max_epochs=1, callbacks=[callback], **arguments).fit(module, data)
    assert callback.checked


def test_histograms_are_written_whichever_logger_is_first(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(SummaryWriter, "add_histogram", lambda writer, name, *_: written.append(name))
    loggers = [CSVLogger(tmp_path), TensorBoardLogger(tmp_path)]
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels(feature_dim=16))
    arguments = TRAINER | {"logger": loggers, "limit_train_batches": 1, "limit_val_batches": 0}
    L.Trainer(max_epochs=1, callbacks=[RLAuxCallback(reward=BATCH())], **arguments).fit(module, data)
    assert written


def test_minibatches_that_do_not_divide_a_rollout_are_announced():
    with pytest.warns(UserWarning, match="`batch_size` of the agent should divide.*=30 and 50"):
        fit(agent=partial(PaperPPO, batch_size=30))


class Returning(BatchReward):
    def __init__(self, value):
        super().__init__(32)
        self.value = value

    def after_step(self, *_):
        return self.value


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize(
    ("value", "found"),
    [(0.5, "float"), (torch.tensor(0.5), r"shape \(\)"), (torch.zeros(50, 1), r"shape \(50, 1\)")],
)
def test_rewards_of_a_wrong_shape_are_refused(value, found, online):
    with pytest.raises(InputError, match=rf"must return a tensor of shape \(50,\).*{found}"):
        fit(reward=Returning(value), online=online)


def test_rewards_with_a_graph_are_taken():
    fit(reward=Returning(torch.zeros(50, requires_grad=True)))


def test_images_that_are_held_out_for_nothing_are_announced():
    data = DigitsDataModule(num_train=250, batch_size=50, meta_split=0.2)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels(feature_dim=16))
    trainer = L.Trainer(max_epochs=1, limit_train_batches=1, callbacks=[RLAuxCallback(reward=BATCH())], **TRAINER)
    with pytest.warns(UserWarning, match="holds 20% of the training images out, but nothing uses them"):
        trainer.fit(module, data)


def test_images_that_a_rule_judges_by_are_held_out_for_something(recwarn):
    data = DigitsDataModule(num_train=250, batch_size=50, meta_split=0.2)
    labeler = AgentLabels(feature_dim=16)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler, combiner=SLGrad(held_out=True))
    callbacks = [RLAuxCallback(reward=BATCH())]
    L.Trainer(max_epochs=1, limit_train_batches=1, callbacks=callbacks, **TRAINER).fit(module, data)
    assert not [warning for warning in recwarn if "nothing uses them" in str(warning.message)]


class OwnStep(MultiHeadVGG):
    def training_step(self, batch, batch_idx):
        return 2 * super().training_step(batch, batch_idx)


def test_a_training_step_that_the_game_does_not_take_is_announced():
    with pytest.warns(UserWarning, match="OwnStep has a `training_step` of its own"):
        fit(kind=OwnStep)


def test_held_out_images_must_exist():
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels())
    trainer = L.Trainer(max_epochs=1, callbacks=[RLAuxCallback(reward=ImprovementReward(held_out=True))], **TRAINER)
    with pytest.raises(InputError, match=r"`held_out`.*meta_split=0"):
        trainer.fit(module, data)
