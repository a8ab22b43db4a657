import pytest
import torch
from torch import nn

from auxlight.networks import Head


@pytest.mark.parametrize(("hidden", "expected"), [(None, 6), (11, 11)])
def test_shape_and_parameters(hidden, expected):
    head = Head(6, 4, hidden)
    assert head(torch.randn(3, 6)).shape == (3, 4)
    assert sum(p.numel() for p in head.parameters()) == (6 + 1) * expected + (expected + 1) * 4


def test_computes_linear_relu_linear():
    torch.manual_seed(0)
    head = Head(3, 2, 5)
    first, second = (layer for layer in head if isinstance(layer, nn.Linear))
    x = torch.randn(4, 3)
    hidden = x.numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy()
    hidden[hidden < 0] = 0
    expected = hidden @ second.weight.detach().numpy().T + second.bias.detach().numpy()
    torch.testing.assert_close(head(x).detach(), torch.from_numpy(expected))
