"""The reward that knows the human labels."""

from functools import partial

import pytest
import torch

from auxlight import AgentLabels, AuxiliaryTarget, InputError
from auxlight.batch import Batch
from auxlight.rl import AgreementReward, PaperPPO
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
    with pytest.raises(InputError, match="AgreementReward needs human sub-labels. Found data without"):
        reward_of([[1.0, 0.0]], None)


def test_an_agent_learns_the_human_labels_from_it():
    """Of the digits, five in a block: chance is a fifth."""
    labeler = {"shared_trunk": True, "sees_primary": True, "block_relative": True, "snapshot": True, "sharpness": 1e9}
    agent = partial(PaperPPO, n_epochs=10, learning_rate=1e-2, ent_coef=0.0, gamma=0.0)
    trainer, *_ = fit(epochs=20, labeler=labeler, reward=AgreementReward(), agent=agent)
    assert float(trainer.callback_metrics["agent/reward"]) > 0.33  # its error is 0.03
