import math
from itertools import islice

import pytest
import torch

from auxlight import BatchReward, DigitsDataModule, ImprovementReward, InfluenceReward, InputError
from auxlight.batch import AuxiliaryTarget
from auxlight.rl.parts import evaluation_batches
from tests.datamodules.test_semi_supervised import on_a_device
from tests.rl.toy import RecordingLearner, batches


def step(reward, learner, batch, target, evaluation):
    """What the game does with a batch."""
    before = reward.before_step(learner, evaluation)
    learner.train_on(batch, target)
    return reward.after_step(learner, batch, target, evaluation, before)


def play(reward, probabilities, loss=0.7):
    learner = RecordingLearner(loss)
    batch, evaluation = batches(1, len(probabilities))[0], batches(1, 8, seed=1)
    target = AuxiliaryTarget(probabilities, torch.ones(len(probabilities)))
    return step(reward, learner, batch, target, evaluation[0]), learner


@pytest.mark.parametrize("entropy_weight", [0.2, 0.0, -1.0])
def test_reward_is_minus_the_loss_after_the_step_minus_the_weighted_negative_entropy(entropy_weight):
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    rewards, learner = play(BatchReward(entropy_weight=entropy_weight), probabilities)
    mean = [0.3, 0.35, 0.35]
    negative_entropy = sum(p * math.log(p) for p in mean)
    assert rewards.tolist() == pytest.approx([-0.7 - entropy_weight * negative_entropy] * 2, rel=1e-5)
    assert learner.calls == ["train", "measure"]


def test_using_more_labels_is_rewarded_by_default():
    spread, _ = play(BatchReward(), torch.eye(4))
    collapsed, _ = play(BatchReward(), torch.eye(4)[[0, 0, 0, 0]])
    assert spread[0] - collapsed[0] == pytest.approx(0.2 * math.log(4), rel=1e-5)


class Falling(RecordingLearner):
    """Its losses are given; it is judged image by image as told."""

    def __init__(self, losses, influence=None):
        super().__init__()
        self.losses, self._influence = list(losses), influence

    def primary_loss(self, batch):
        super().primary_loss(batch)
        return self.losses.pop(0)

    def position(self):
        self.calls.append("position")
        return "before"

    def influence(self, before, *_):
        assert before == "before"
        return self._influence


TARGET = AuxiliaryTarget(torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]]), torch.ones(2))
NEGATIVE_ENTROPY = sum(p * math.log(p) for p in [0.3, 0.35, 0.35])


def test_improvement_is_the_fall_of_the_loss_on_one_batch():
    """Of two steps that share a batch the loss between them is measured once."""
    reward, learner = ImprovementReward(entropy_weight=0.5, scale=10.0), Falling([0.9, 0.7, 0.75, 0.4, 0.4])
    batch, (first, second) = batches(1, 2)[0], batches(2, 8, seed=1)
    spread = -0.5 * NEGATIVE_ENTROPY
    for evaluation, gain in ((first, 0.2), (first, -0.05), (second, 0.0)):
        rewards = step(reward, learner, batch, TARGET, evaluation)
        assert rewards.tolist() == pytest.approx([10 * gain + spread] * 2, rel=1e-5)
    assert learner.calls == ["measure", "train", "measure", "train", "measure", "measure", "train", "measure"]


@pytest.mark.parametrize("normalize", [False, True])
def test_influence_is_each_images_own(normalize):
    reward = InfluenceReward(entropy_weight=0.5, normalize=normalize)
    learner = Falling([], torch.tensor([3e-4, -4e-4]))
    rewards = step(reward, learner, batches(1, 2)[0], TARGET, batches(1, 8, seed=1)[0])
    size = math.sqrt((9 + 16) / 2) * 1e-4 if normalize else 1.0
    spread = -0.5 * NEGATIVE_ENTROPY
    assert rewards.tolist() == pytest.approx([3e-4 / size + spread, -4e-4 / size + spread], rel=1e-4)
    assert learner.calls == ["position", "train"]


@pytest.mark.parametrize("held_out", [False, True])
def test_evaluation_batches_are_of_the_images_that_the_reward_asks_for(held_out):
    data = DigitsDataModule(batch_size=50, num_train=250, meta_split=0.2)
    data.setup("fit")
    on_a_device(data)
    reward = ImprovementReward(20, held_out=held_out, evaluation_steps=3)
    found = list(islice(evaluation_batches(data, reward, "x"), 12))
    indices = [tuple(batch.index.tolist()) for batch in found]
    assert all(len(set(indices[i : i + 3])) == 1 for i in (0, 3, 6, 9)) and len(set(indices)) == 4
    meta = {int(i) for batch in data.training_batches("all", 0, 50, "meta") for i in batch.index}
    assert len(meta) == 50
    for batch in found:
        assert (set(batch.index.tolist()) <= meta) == held_out and len(batch.index) == 20


def test_an_empty_evaluation_batch_is_refused():
    with pytest.raises(InputError, match="batch_size=0"):
        BatchReward(batch_size=0)
