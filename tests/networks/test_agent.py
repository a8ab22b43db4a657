import pytest
import torch
from torch import nn

from auxlight import VGG
from auxlight.networks import AgentNetwork


@pytest.fixture
def network() -> AgentNetwork:
    torch.manual_seed(0)
    return AgentNetwork(VGG(11, 0.0625, norm="group"), 32, 16, (10, 21))


def test_shapes(network):
    image = torch.randn(3, 3, 32, 32)
    assert network.features(image).shape == (3, 16)
    assert network(image).shape == (3, 31)
    assert network.value_head(network.features(image)).shape == (3, 1)
    assert network.act(image).shape == (3, 2) and network.act(image).dtype == torch.int64


def test_acts_by_the_largest_logit_of_each_part(network):
    network.action_head.weight.data.normal_()
    image = torch.randn(8, 3, 32, 32)
    expected = [[row.index(max(row[:10])), row.index(max(row[10:]), 10) - 10] for row in network(image).tolist()]
    assert network.act(image).tolist() == expected
    assert len({tuple(action) for action in expected}) > 1


def test_one_part():
    network = AgentNetwork(nn.Flatten(), 12, 4, (5,))
    network.action_head.bias.data[3] = 9
    assert network.act(torch.randn(2, 3, 2, 2)).tolist() == [[3], [3]]


def test_starts_near_uniform(network):
    assert (network.action_head.weight.norm() / min(network.action_head.weight.shape) ** 0.5).item() == pytest.approx(
        0.01, rel=1e-4
    )
    assert network.value_head.weight.norm().item() == pytest.approx(1, rel=1e-4)
    assert not network.action_head.bias.any() and not network.value_head.bias.any()
