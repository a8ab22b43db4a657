"""The reward that knows the human labels."""

import pytest
import torch

from auxlight import AuxiliaryTarget, InputError
from auxlight.batch import Batch
from auxlight.rl import AgreementReward
from tests.rl.test_options import fit


def reward_of(probabilities, auxiliary, **options):
    count = len(probabilities)
    human = None if auxiliary is None else torch.tensor(auxiliary)
    batch = Batch(torch.zeros(count, 3, 2, 2), torch.zeros(count, dtype=torch.int64), human, torch.arange(count))
    target = AuxiliaryTarget(torch.tensor(probabilities), torch.ones(count))
    return AgreementReward(**options).after_step(None, batch, target, None, None).tolist()


def test_an_image_is_worth_its_share_of_the_human_label_and_nothing_without_one():
    found = reward_of([[1.0, 0.0], [0.0, 1.0], [0.3, 0.7], [1.0, 0.0]], [0, 0, 1, -1])
    assert found == pytest.approx([1, 0, 0.7, 0])


def test_the_use_of_many_labels_can_be_rewarded_as_elsewhere():
    one, many = (reward_of(rows, [0, 0], entropy_weight=2.0) for rows in ([[1.0, 0.0]] * 2, [[1.0, 0.0], [0.0, 1.0]]))
    assert one == [1, 1] and many == pytest.approx([1 + 2 * 0.6931, 2 * 0.6931], abs=1e-3)


def test_data_without_human_labels_are_refused():
    with pytest.raises(InputError, match="AgreementReward needs human sub-labels"):
        reward_of([[1.0, 0.0]], None)


def test_an_agent_that_has_not_learned_is_right_by_chance():
    """Of the digits, five in a block; its error is 0.03."""
    labeler = {"shared_trunk": True, "block_relative": True, "sharpness": float("inf")}
    trainer, *_ = fit(labeler=labeler, reward=AgreementReward())
    assert float(trainer.callback_metrics["agent/reward"]) == pytest.approx(0.2, abs=0.1)
