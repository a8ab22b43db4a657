import numpy as np
import pytest
import torch

from auxlight import InputError, LeNet


def images(batch, size=32, channels=3):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("feature_dim", "channels"), [(50, 1), (50, 3), (7, 3)])
def test_parameters_by_hand(feature_dim, channels):
    network = LeNet(feature_dim, channels)
    expected = (25 * channels + 1) * 10 + (25 * 10 + 1) * 20 + (20 * 4 * 4 + 1) * feature_dim
    assert sum(p.numel() for p in network.parameters()) == expected
    assert network.feature_dim == feature_dim
    assert network(images(2, channels=channels)).shape == (2, feature_dim)


def test_fifty_features_by_default():
    assert LeNet().feature_dim == 50


def convolved(x, weight, bias):
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[-2:], (2, 3))
    return np.einsum("bchwij,ocij->bohw", windows, weight) + bias[:, None, None]


def pooled(x):
    return np.maximum.reduce([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)])


@pytest.mark.parametrize(("size", "left"), [(28, 4), (44, 8)])
def test_features_by_hand(size, left):
    """28 × 28 → 24 → 12 → 8 → 4: nothing is left to average. 44 × 44 → 40 → 20 → 16 → 8: fours are."""
    network, image = LeNet(), images(3, size)
    w1, b1, w2, b2, w3, b3 = (p.detach().double().numpy() for p in network.parameters())
    x = np.maximum(pooled(convolved(image.double().numpy(), w1, b1)), 0)
    x = np.maximum(pooled(convolved(x, w2, b2)), 0)
    assert x.shape == (3, 20, left, left)
    x = x.reshape(3, 20, 4, left // 4, 4, left // 4).mean((3, 5))
    x = np.maximum(x.reshape(3, 320) @ w3.T + b3, 0)
    np.testing.assert_allclose(network(image).detach(), x, rtol=1e-4, atol=1e-5)
    assert (x > 0).any(1).all()


@pytest.mark.parametrize("size", [16, 17, 28, 36, 64])
def test_image_sizes(size):
    features = LeNet()(images(2, size))
    assert features.shape == (2, 50) and features.isfinite().all() and features.std() > 0


def test_training_and_evaluation_are_the_same():
    network = LeNet()
    torch.testing.assert_close(network.train()(images(2)), network.eval()(images(2)), rtol=0, atol=0)


def test_gradient_reaches_every_parameter():
    network = LeNet()
    network(images(16)).sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("shape", [(3, 15, 15), (3, 32, 15), (3, 15, 32), (1, 32, 32), (4, 32, 32)])
def test_unsuitable_images(shape):
    with pytest.raises(InputError, match=rf"in_channels=3 .*Found images of shape \({shape[0]}, {shape[1]}, "):
        LeNet()(torch.zeros(2, *shape))


@pytest.mark.parametrize("feature_dim", [0, -1])
def test_no_features_are_refused(feature_dim):
    with pytest.raises(InputError, match=f"`feature_dim` must be at least 1. Found feature_dim={feature_dim}"):
        LeNet(feature_dim)
