import itertools
import math

import pytest
import torch

from auxlight import BatchReward, InputError
from auxlight.batch import AuxiliaryTarget
from tests.rl.toy import RecordingLearner, batches


def play(reward, probabilities, loss=0.7):
    learner = RecordingLearner(loss)
    batch, evaluation = batches(1, len(probabilities))[0], batches(3, 8, seed=1)
    target = AuxiliaryTarget(probabilities, torch.ones(len(probabilities)))
    return reward(learner, batch, target, itertools.chain(evaluation)), learner


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


def test_every_reward_has_an_evaluation_batch_of_its_own():
    learner, reward, evaluation = RecordingLearner(), BatchReward(batch_size=8), iter(batches(3, 8))
    target = AuxiliaryTarget(torch.eye(4), torch.ones(4))
    for batch in batches(3, 4, seed=1):
        reward(learner, batch, target, evaluation)
    assert [int(batch.index[0]) for batch in learner.measured] == [0, 8, 16]


def test_an_empty_evaluation_batch_is_refused():
    with pytest.raises(InputError, match="batch_size=0"):
        BatchReward(batch_size=0)
