import copy
import itertools
from functools import partial

import lightning as L
import pytest
import torch
from stable_baselines3 import PPO
from torch import distributed as dist
from torch.optim import SGD

from auxlight import (
    AgentLabels,
    DigitsDataModule,
    ImprovementReward,
    InfluenceReward,
    InputError,
    MultiHeadVGG,
    RLAuxCallback,
)
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.rl import PaperPPO
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.player import Player
from tests.devices import on_two_devices
from tests.modules.test_ddp import TRAINER, Images, Trunk
from tests.rl.test_player import make_player
from tests.rl.toy import batches

METHODS = {
    "paper": ({}, {}),
    "improvement": ({}, {"reward": ImprovementReward(20)}),
    "influence": ({"shared_trunk": True}, {"reward": InfluenceReward(20)}),
    "snapshot": ({"shared_trunk": True, "snapshot": True}, {"reward": InfluenceReward(20)}),
    "online": ({"shared_trunk": True, "sees_primary": True}, {"reward": InfluenceReward(20), "online": True}),
}


class EveryEpoch(L.Callback):
    """All that a checkpoint would hold of the module, once an epoch is validated, and what an agent sees before it."""

    def __init__(self):
        self.states, self.seen = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        labeler = module.labelled_task.labeler
        if batch_idx == 0 and labeler.takes_snapshots:
            self.seen.append(copy.deepcopy(labeler.snapshot.state_dict()))

    def on_validation_end(self, trainer, module):
        self.states.append(copy.deepcopy(module.state_dict()))


def fit_digits():
    states, seen = {}, {}
    for method, (labeler, options) in METHODS.items():
        L.seed_everything(dist.get_rank(), verbose=False)  # the devices begin with networks of their own
        data = DigitsDataModule(num_train=200, batch_size=25)
        labeler = AgentLabels(weighted=True, feature_dim=16, **labeler)
        module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler)
        L.seed_everything(0, verbose=False)
        before, watch = copy.deepcopy(module.state_dict()), EveryEpoch()
        callbacks = [watch, RLAuxCallback(agent=partial(PaperPPO, n_epochs=2, n_steps=3, gamma=0.0), **options)]
        # In a validation the devices' buffers become the first one's.
        arguments = TRAINER | {"check_val_every_n_epoch": 2 if labeler.takes_snapshots else 1}
        L.Trainer(devices=2, strategy="ddp", callbacks=callbacks, **arguments).fit(module, data)
        states[method] = [before, *watch.states]
        seen[method] = watch.seen
    return states, seen


def test_agents_and_networks_of_two_devices_stay_equal(tmp_path):
    (one, seen), (other, seen_by_other) = on_two_devices(fit_digits, tmp_path)
    for mine, yours in zip(seen["snapshot"], seen_by_other["snapshot"], strict=True):
        assert [name for name in mine if not torch.equal(mine[name], yours[name])] == []
    assert len(seen["snapshot"]) == 2
    for method, states in one.items():
        for epoch, (before, after) in enumerate(itertools.pairwise(states)):
            still = [name for name in after if torch.equal(after[name], before[name])]
            assert [(method, epoch, name) for name in still if epoch or ".snapshot." not in name] == []
            twin = other[method][epoch + 1]
            assert [(method, epoch, name) for name in after if not torch.equal(after[name], twin[name])] == []


class OneStep(L.Callback):
    """A step of the game on the first batch, with labels that depend on the image alone."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        labeler = module.labelled_task.labeler
        actions = torch.stack([batch.index % 5, batch.index % 21], 1)
        target = labeler.actions.target(actions, batch.primary)
        learner = ModuleLearner(trainer, module, labeler)
        before = copy.deepcopy(module.state_dict())
        if batch_idx == 0:
            learner.train_on(batch, target)
            self.moves = {name: after - before[name] for name, after in module.state_dict().items()}


def step_of_the_game(devices=2):
    L.seed_everything(0, verbose=False)
    labeler = AgentLabels(weighted=True, trunk=Trunk(), untrained=True)
    optimizer = partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.1)
    module = AuxiliaryClassifier((2, 3), Trunk(), labeler=labeler, optimizer=optimizer)
    step = OneStep()
    strategy = "ddp" if devices > 1 else "auto"
    arguments = TRAINER | {"precision": "64-true", "limit_train_batches": 1}
    L.Trainer(devices=devices, strategy=strategy, callbacks=[step], **arguments).fit(module, Images(devices, 0.0))
    return step.moves


def test_a_step_of_the_game_on_two_devices_is_one_on_all_their_images(tmp_path):
    whole = step_of_the_game(devices=1)
    main = {name for name in whole if "labeler" not in name}
    assert all(whole[name].any() for name in main)
    for moves in on_two_devices(step_of_the_game, tmp_path):
        for name in main:
            torch.testing.assert_close(moves[name], whole[name], rtol=1e-6, atol=1e-9)


def slopes():
    """Gradients of an update's loss, averaged or not, for a policy that is the same on both devices."""
    torch.manual_seed(0)
    player, _, _ = make_player(batches(2, 4))
    player = Player(player.agent, devices=2)
    policy = player.agent.policy
    image = batches(1, 6, seed=dist.get_rank())[0].image

    def gradients():
        policy.zero_grad()
        values, log_probabilities, entropy = policy.evaluate_actions(image, torch.zeros(6, 1))
        (values.square().mean() - log_probabilities.mean() + entropy.mean()).backward()
        return {name: parameter.grad.clone() for name, parameter in policy.named_parameters()}

    own = gradients()
    with player.averaged_gradients():
        averaged = gradients()
    assert all(torch.equal(value, own[name]) for name, value in gradients().items())  # outside it is as before
    return own, averaged


def test_an_update_of_the_policy_follows_the_mean_gradient(tmp_path):
    (one, averaged), (other, twin) = on_two_devices(slopes, tmp_path)
    for name in one:
        assert not torch.equal(one[name], other[name])
        assert torch.equal(averaged[name], twin[name])
        torch.testing.assert_close(averaged[name], (one[name] + other[name]) / 2)


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (partial(PaperPPO, target_kl=0.1), "must not stop early.*target_kl=0.1"),
        (partial(PPO, n_steps=2, batch_size=4, target_kl=0.1), "must not stop early"),
    ],
)
def test_what_would_lead_devices_apart_is_refused(agent, message):
    player, _, _ = make_player(batches(2, 4), agent)
    with pytest.raises(InputError, match=message):
        Player(player.agent, devices=2)


def test_an_agent_that_does_not_learn_by_gradients_alone_is_refused_on_two_devices():
    contrib = pytest.importorskip("sb3_contrib")
    player, _, _ = make_player(batches(2, 4), partial(contrib.TRPO, n_steps=2, batch_size=4))
    with pytest.raises(InputError, match="Found TRPO on 2"):
        Player(player.agent, devices=2)
