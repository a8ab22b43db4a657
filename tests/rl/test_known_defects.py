"""Mistakes of published RL-AUX and MAXL code that decided its results; each test fails where one of them is made.

Elsewhere: heads outside of the optimizer (test_player, test_callback: every parameter moves), a first batch that is
lost in later episodes (test_env: no image is lost), evaluation that moves batch norm's statistics (test_callback:
MeasuringReward), weights of a batch multiplied into a matrix in WA-MAXL (modules/test_maxl).
"""

import math

import lightning as L
import numpy as np
import pytest
import torch

from auxlight import AgentLabels, DigitsDataModule, MultiHeadVGG
from auxlight.rl.module_learner import ModuleLearner
from tests.quiet import TRAINER
from tests.rl.test_player import make_player
from tests.rl.toy import batches


def focal(logits, label):
    """−(1 − p)² log p, from logits, in plain Python."""
    largest = max(logits)
    p = math.exp(logits[label] - largest) / sum(math.exp(z - largest) for z in logits)
    return -((1 - p) ** 2) * math.log(p)


class InFit(L.Callback):
    """Calls a check on the first batch of a fit."""

    def __init__(self, check):
        self.check = check
        self.checked = False

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not self.checked:
            self.check(ModuleLearner(trainer, module, module.labelled_task.labeler), module, batch)
        self.checked = True


def in_fit(check):
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=100, batch_size=50)
    labeler = AgentLabels(weighted=True, feature_dim=16, untrained=True)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler)
    callback = InFit(check)
    L.Trainer(max_epochs=1, callbacks=[callback], **TRAINER).fit(module, data)
    assert callback.checked


def test_the_critic_judges_each_image_for_itself():
    player, _, _ = make_player(batches(2, 8))
    policy, image = player.agent.policy, batches(1, 8)[0].image
    values = policy.predict_values(image)
    assert values.shape == (8, 1) and values.std() > 0.01
    torch.testing.assert_close(policy.predict_values(image[:3]), values[:3])


def test_the_reward_takes_the_loss_of_logits_in_evaluation_mode():
    def check(learner, module, batch):
        module.primary_head[-1].weight.data.mul_(30)  # confident, where a second softmax would show
        module.eval()
        with torch.no_grad():
            logits = module(batch.image).tolist()
        module.train()
        expected = np.mean([focal(row, y) for row, y in zip(logits, batch.primary.tolist(), strict=True)])
        assert learner.primary_loss(batch) == pytest.approx(expected, rel=1e-4)

    in_fit(check)


def test_each_image_has_a_weight_of_its_own_in_the_step():
    def check(learner, module, batch):
        actions = torch.stack([torch.arange(50) % 10, torch.arange(50) % 21], 1)
        target = module.labelled_task.labeler.actions.target(actions, batch.primary)
        with torch.no_grad(), module.labelled_task.given(target):
            outputs = module.step(batch)
            auxiliary = module.labelled_task.head(outputs.features).log_softmax(1)
        total = 0.0
        for i in range(50):
            total += focal(outputs.logits[i].tolist(), int(batch.primary[i])) / 50
            weight = 2 ** (10 * (i % 21) / 20 - 5)
            of_classes = zip(target.probabilities[i].tolist(), auxiliary[i].tolist(), strict=True)
            total += weight * sum(-t * (1 - math.exp(log_p)) ** 2 * log_p for t, log_p in of_classes) / 50
        assert float(outputs.loss) == pytest.approx(total, rel=1e-4)

    in_fit(check)


def test_every_action_is_rewarded_when_it_is_taken():
    """The authors' agent sees one reward in a hundred steps, and rollouts of 79 steps that often hold none."""
    player, env, _ = make_player(batches(7, 8), n_steps=3, n_epochs=1)
    rewards, original = [], player.agent.train

    def train():
        rewards.append(player.agent.rollout_buffer.rewards.copy())
        original()

    player.agent.train = train
    player.play(env, 7)
    assert [part.shape for part in rewards] == [(3, 8), (2, 8), (2, 8)]
    assert all(part.any() for part in rewards)
    assert np.concatenate(rewards).mean(1) == pytest.approx(env.rewards)
