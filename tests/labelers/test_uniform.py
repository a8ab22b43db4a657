import torch
from torch import nn

from auxlight import Batch, LabelHierarchy, UniformLabels


def test_even_inside_the_block():
    labeler = UniformLabels()
    labeler.bind(LabelHierarchy((1, 2, 4)), nn.Identity(), 4)
    batch = Batch(torch.zeros(4, 3, 2, 2), torch.tensor([2, 0, 1, 2]), None, torch.arange(4))
    target = labeler(batch, torch.randn(4, 9))
    quarter = [0, 0, 0, 0.25, 0.25, 0.25, 0.25]
    assert target.probabilities.tolist() == [quarter, [1] + [0] * 6, [0, 0.5, 0.5, 0, 0, 0, 0], quarter]
    assert target.weight.tolist() == [1] * 4
