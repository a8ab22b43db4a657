import math

import pytest
import torch

from auxlight import BatchReward, InputError
from auxlight.batch import AuxiliaryTarget
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


def test_an_empty_evaluation_batch_is_refused():
    with pytest.raises(InputError, match="batch_size=0"):
        BatchReward(batch_size=0)
