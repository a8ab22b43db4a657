import copy
from functools import partial

import lightning as L
import pytest
import torch
from sb3_contrib import TRPO, MaskablePPO
from stable_baselines3 import A2C, PPO
from torch.optim import SGD

from auxlight import (
    AgentLabels,
    AuxiliaryTarget,
    BatchReward,
    DigitsDataModule,
    ImprovementReward,
    InfluenceReward,
    InputError,
    MultiHeadVGG,
    RLAuxCallback,
)
from auxlight.rl import PaperPPO
from auxlight.rl.module_learner import ModuleLearner
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


def fit(epochs=1, ckpt_path=None, labeler=None, trainer_arguments=None, kind=Watched, **options):
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=250, batch_size=50, meta_split=0.2)
    labeler = AgentLabels(weighted=True, feature_dim=16, **(labeler or {}))
    module = kind(
        data.hierarchy, depth=11, width=0.0625, labeler=labeler, optimizer=partial(SGD, lr=0.05, momentum=0.9)
    )
    options = {"agent": partial(PaperPPO, n_epochs=2), "reward": BATCH()} | options
    callback, around = RLAuxCallback(**options), Around()
    trainer = L.Trainer(max_epochs=epochs, callbacks=[around, callback], **(TRAINER | (trainer_arguments or {})))
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


@pytest.mark.parametrize("options", [{}, {"online": True}, {"every_n_epochs": 2}], ids=["paper", "online", "every 2"])
@pytest.mark.parametrize("eyes", ["own", "shared"])
def test_a_resumed_run_ends_where_the_whole_one_does(eyes, options, tmp_path):
    def run(**arguments):
        return fit(labeler=EYES[eyes], reward=REWARDS["improvement"](), **options, **arguments)

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
    actions, _ = PPO.load(tmp_path / "agent.zip").predict(image.numpy(), deterministic=True)
    assert_equal(torch.as_tensor(actions), module.labelled_task.labeler.network.act(image))


def test_the_influence_of_an_image_is_what_its_weight_does():
    """Redo the step with one weight a little larger and a little smaller, and measure the primary loss."""

    class Redo(L.Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            labeler = module.labelled_task.labeler
            learner = ModuleLearner(trainer, module, labeler)
            evaluation = next(iter(trainer.datamodule.training_batches("evaluation", 0, 16)))
            chosen = torch.randint(10, (len(batch.image), 2))
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


def test_another_agents_file_is_refused(tmp_path):
    _, _, callback, _ = fit()
    callback.export_agent(tmp_path / "agent.zip")
    with pytest.raises(InputError, match=r"`start_from`.*Found eyes.weight of shape None instead of \(32,\)"):
        fit(labeler={"shared_trunk": True}, start_from=tmp_path / "agent.zip")
    (tmp_path / "broken.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="cannot be read as one"):
        fit(start_from=tmp_path / "broken.zip")
    with pytest.raises(InputError, match="fit first"):
        RLAuxCallback().export_agent(tmp_path / "none.zip")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RLAuxCallback(every_n_epochs=0), "`every_n_epochs` must be at least 1.*=0"),
        (lambda: RLAuxCallback(pretrain_epochs=-1), "`pretrain_epochs` must be at least 0.*=-1"),
        (lambda: RLAuxCallback(epoch_fraction=0), "`epoch_fraction` must lie"),
        (lambda: RLAuxCallback(epoch_fraction=1.5), "`epoch_fraction` must lie.*1.5"),
        (lambda: RLAuxCallback(online=True, reset="batch"), "online agent.*reset='batch'"),
        (lambda: fit(reset="step"), "`reset` must be 'epoch' or 'batch'"),
        (lambda: BatchReward(batch_size=0), "`batch_size` of the reward must be at least 1"),
        (lambda: ImprovementReward(evaluation_steps=0), "`evaluation_steps` of the reward"),
        (lambda: ImprovementReward(scale=0), "`scale` of the reward"),
        (lambda: AgentLabels(shared_trunk=True, trunk=torch.nn.Flatten()), "`shared_trunk`"),
        (lambda: fit(labeler={"weight_exponents": (2.0, 1.0)}), r"`weight_exponents`.*\(2.0, 1.0\)"),
        (lambda: fit(labeler={"weight_levels": 1}), "`weight_levels` must be at least 2"),
        (lambda: fit(agent=partial(PaperPPO, batch_size=30)), "`batch_size` of the agent must divide.*=30 and 50"),
        (lambda: fit(agent=MaskablePPO), "`agent` does not take its arguments: Policy must subclass"),
        (lambda: fit(labeler={"trunk": torch.nn.Flatten()}), "`feature_dim`"),
    ],
)
def test_mistakes_get_a_sentence(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_held_out_images_must_exist():
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels())
    trainer = L.Trainer(max_epochs=1, callbacks=[RLAuxCallback(reward=ImprovementReward(held_out=True))], **TRAINER)
    with pytest.raises(InputError, match=r"`held_out`.*meta_split=0"):
        trainer.fit(module, data)
