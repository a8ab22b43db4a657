import pytest
import torch
from torch import nn

from auxlight import Batch, HumanLabels, InputError, LabelHierarchy


def labeler() -> HumanLabels:
    result = HumanLabels()
    result.bind(LabelHierarchy((2, 3)), nn.Identity(), 4)
    return result


def test_one_hot_of_weight_one():
    auxiliary = [4, 0, 2]
    batch = Batch(torch.zeros(3, 3, 2, 2), torch.tensor([1, 0, 1]), torch.tensor(auxiliary), torch.arange(3))
    target = labeler()(batch, torch.zeros(3, 7))
    assert target.probabilities.tolist() == [[float(k == label) for k in range(5)] for label in auxiliary]
    assert target.weight.tolist() == [1, 1, 1]


def test_no_human_labels():
    batch = Batch(torch.zeros(3, 3, 2, 2), torch.tensor([1, 0, 1]), None, torch.arange(3))
    with pytest.raises(InputError, match="HumanLabels needs a data set with human sub-labels"):
        labeler()(batch, torch.zeros(3, 7))
