import pytest
import torch
from torch import nn

from auxlight import VGG, InputError


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def images(batch: int, size: int = 32, channels: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("depth", [11, 13, 16, 19])
def test_depth_counts_convolutions_and_three_linear_layers(depth):
    network = VGG(depth, width=0.0625)
    assert len(convolutions(network)) == depth - 3
    assert sum(isinstance(module, nn.MaxPool2d) for module in network.modules()) == 5
    assert all(conv.kernel_size == (3, 3) and conv.bias is None for conv in convolutions(network))


def test_parameters_of_vgg16_by_hand():
    network = VGG(16)
    per_layer = [3 * 64, 64 * 64, 64 * 128, 128 * 128, 128 * 256, 256 * 256, 256 * 256, 256 * 512] + [512 * 512] * 5
    assert [conv.weight.numel() for conv in convolutions(network)] == [9 * pairs for pairs in per_layer]
    assert sum(conv.weight.numel() for conv in convolutions(network)) == 14_710_464
    norms = 2 * (2 * 64 + 2 * 128 + 3 * 256 + 6 * 512)
    assert sum(p.numel() for p in network.parameters()) == 14_710_464 + norms


@pytest.mark.parametrize(("width", "features"), [(1, 512), (0.25, 128), (0.0625, 32)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_feature_size(width, features, norm):
    network = VGG(11, width, norm=norm)
    assert network.feature_dim == features
    assert network(images(2)).shape == (2, features)


@pytest.mark.parametrize("size", [32, 33, 48, 64, 96])
def test_image_sizes(size):
    network = VGG(16, 0.0625).eval()
    features = network(images(2, size))
    assert features.shape == (2, 32) and features.isfinite().all() and features.std() > 0


def test_larger_images_are_averaged_not_cut():
    """What lies in one corner reaches the features."""
    network = VGG(11, 0.0625, norm="group")
    corner = torch.zeros(1, 3, 96, 96)
    corner[..., 64:, 64:] = images(1)
    assert not torch.allclose(network(corner), network(torch.zeros(1, 3, 96, 96)))


def test_other_channels():
    assert VGG(11, 0.0625, in_channels=1)(images(2, channels=1)).shape == (2, 32)


@pytest.mark.parametrize("shape", [(2, 3, 31, 31), (2, 3, 32, 31), (2, 3, 31, 64), (2, 1, 32, 32), (2, 4, 32, 32)])
def test_unsuitable_images(shape):
    found = f"Found {shape[2]} × {shape[3]}" if shape[1] == 3 else f"images of {shape[1]} channels"
    with pytest.raises(InputError, match=found):
        VGG(11, 0.0625)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"depth": 12}, "depth"),
        ({"width": 0}, "width"),
        ({"width": -1.0}, "width"),
        ({"width": float("nan")}, "width"),
        ({"width": float("inf")}, "width"),
        ({"norm": "layer"}, "norm"),
    ],
)
def test_unsuitable_arguments(arguments, name):
    with pytest.raises(InputError, match=f"`{name}` must be"):
        VGG(**arguments)


@pytest.mark.parametrize("width", [0.0625, 0.25, 0.3])
def test_group_norm_computes_one_function(width):
    network, batch = VGG(11, width, norm="group"), images(4)
    training = network.train()(batch)
    torch.testing.assert_close(network.eval()(batch), training, rtol=0, atol=0)
    torch.testing.assert_close(network.train()(batch[:1]), training[:1], rtol=1e-4, atol=1e-5)  # no batch mates
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_batch_norm_does_not():
    network, batch = VGG(11, 0.0625), images(4)
    training = network.train()(batch)
    assert not torch.allclose(network.eval()(batch), training, rtol=1e-2)
    assert not torch.allclose(network.train()(batch[:2]), training[:2], rtol=1e-2)
