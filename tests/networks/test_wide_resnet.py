import pytest
import torch
from torch import nn
from torch.nn import functional as F

from auxlight import InputError, MultiHeadWideResNet, WideResNet


def images(batch, size=32, channels=3):
    return torch.randn(batch, channels, size, size, generator=torch.Generator().manual_seed(0))


def parts(network, kind):
    return [module for module in network.modules() if isinstance(module, kind)]


def small(depth=10, widen=2, **options):
    """A fourth of the channels, with norms that do something."""
    network = WideResNet(depth, widen, **{"width": 0.25} | options)
    for norm in parts(network, nn.BatchNorm2d):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return network


def paper_parameters(depth, widen):
    """Of a pre-activation wide residual network without its last linear layer: weights, and two per norm's channel."""
    blocks, total, before = (depth - 4) // 6, 3 * 3 * 3 * 16, 16
    for after in (16 * widen, 32 * widen, 64 * widen):
        if before != after:
            total += before * after  # 1 × 1 short cut
        total += (9 * before * after + 2 * before) + (9 * after * after + 2 * after)
        total += (blocks - 1) * 2 * (9 * after * after + 2 * after)
        before = after
    return total + 2 * before


@pytest.mark.parametrize(("depth", "widen"), [(10, 1), (10, 4), (16, 2), (28, 2), (28, 10), (40, 1)])
def test_parameters_are_those_of_the_paper(depth, widen):
    with torch.device("meta"):
        network = WideResNet(depth, widen)
    assert sum(p.numel() for p in network.parameters()) == paper_parameters(depth, widen)
    assert len([conv for conv in parts(network, nn.Conv2d) if conv.kernel_size == (3, 3)]) == depth - 3
    assert all(conv.bias is None for conv in parts(network, nn.Conv2d))
    assert network.feature_dim == 64 * widen


@pytest.mark.parametrize(
    ("depth", "widen", "millions"),
    [(40, 1, 0.6), (40, 2, 2.2), (40, 4, 8.9), (28, 10, 36.5), (22, 8, 17.2), (16, 8, 11)],
)
def test_parameters_as_the_paper_states_them(depth, widen, millions):
    with torch.device("meta"):
        network = nn.Sequential(WideResNet(depth, widen), nn.Linear(64 * widen, 10))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


def test_wrn_28_2_gives_128_features():
    network = WideResNet()
    assert network.feature_dim == 128 and network(images(2)).shape == (2, 128)
    assert [conv.stride for conv in parts(network, nn.Conv2d)].count((2, 2)) == 4  # two stages, body and short cut


def by_hand(network, image, training):
    """Norm, leaky ReLU, convolution, as Oliver et al. (2018) have them, from the weights in their order."""
    norms, convolutions = iter(parts(network, nn.BatchNorm2d)), iter(parts(network, nn.Conv2d))

    def activated(x):
        norm = next(norms)
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        else:
            mean, var = norm.running_mean, norm.running_var
        mean, var, weight, bias = (v[:, None, None] for v in (mean, var, norm.weight, norm.bias))
        x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        return torch.where(x > 0, x, 0.1 * x)

    def convolved(x, stride=1):
        weight = next(convolutions).weight
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    x = convolved(image)
    for stage in range(3):
        for block in range((len(parts(network, nn.Conv2d)) - 4) // 6):
            stride = 2 if stage and not block else 1
            started = activated(x)
            if not block and stage:
                x = convolved(x, stride)
            elif not block:
                x = convolved(started)  # the very first short cut goes from behind norm and activation
            x = x + convolved(activated(convolved(started, stride)))
    return activated(x).mean((2, 3))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("depth", [10, 16])
def test_features_by_hand(depth, training):
    network, image = small(depth).double().train(training), images(3).double()
    expected = by_hand(network, image, training).detach()
    torch.testing.assert_close(network(image).detach(), expected)


def test_where_no_channels_are_added_the_first_short_cut_is_the_activated_image():
    network = small(widen=1, width=1).eval()
    first, block = network.layers[0], network.layers[1]
    nn.init.zeros_(parts(block, nn.Conv2d)[-1].weight)
    x = first(images(2))
    norm = parts(block, nn.BatchNorm2d)[0]
    z = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    torch.testing.assert_close(block(x), torch.maximum(z, 0.1 * z))


@pytest.mark.parametrize("share", [1e-3, 0.3])
def test_statistics_move_by_their_share_of_a_batch(share):
    network, image = WideResNet(10, 1, 0.5, norm_momentum=share), images(4)
    seen = network.layers[0](image).detach()
    network(image)
    norm = parts(network, nn.BatchNorm2d)[0]
    torch.testing.assert_close(norm.running_mean, share * seen.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 1 - share + share * seen.var((0, 2, 3)))
    assert {norm.momentum for norm in parts(network, nn.BatchNorm2d)} == {share}


def test_evaluation_has_no_batch_mates_and_leaves_the_statistics():
    network, image = small(), images(4)
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    alone = network.eval()(image[:1])
    torch.testing.assert_close(network(image)[:1], alone, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
    together = network.train()(image)
    assert not torch.allclose(network(image[:2]), together[:2], rtol=1e-2)
    assert not torch.allclose(network.layers[1].start[0].running_mean, before["layers.1.start.0.running_mean"])


def test_gradient_reaches_every_parameter():
    network = WideResNet(width=0.25)
    (network(images(4)) * torch.randn(4, 32)).sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(("width", "channels"), [(0.25, [4, 8, 16, 32]), (0.3, [5, 10, 19, 38]), (0.01, [1, 1, 1, 1])])
def test_width_is_a_factor_on_every_layer(width, channels):
    network = WideResNet(10, 2, width)
    made = [conv.out_channels for conv in parts(network, nn.Conv2d) if conv.kernel_size == (3, 3)]
    assert made == [channels[0], *(c for c in channels[1:] for _ in range(2))]
    assert network.feature_dim == channels[-1] and network(images(2)).shape == (2, channels[-1])


@pytest.mark.parametrize("size", [8, 28, 33, 64])
def test_image_sizes(size):
    features = small().eval()(images(2, size))
    assert features.shape == (2, 32) and features.isfinite().all() and features.std() > 0


def test_other_channels():
    assert small(in_channels=1)(images(2, channels=1)).shape == (2, 32)
    with pytest.raises(InputError, match="Found in_channels=3 and images of 1 channels"):
        small()(images(2, channels=1))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *[({"depth": depth}, "depth") for depth in (-2, 4, 9, 11, 12, 20, 27)],
        *[({"widen": widen}, "widen") for widen in (0, -1)],
        *[({"width": width}, "width") for width in (0, -0.5, float("nan"), float("inf"))],
        *[({"norm_momentum": share}, "norm_momentum") for share in (0, -0.1, 1.1, float("nan"))],
    ],
)
def test_unsuitable_arguments(arguments, name):
    with pytest.raises(InputError, match=rf"`{name}`.*{name}={arguments[name]}"):
        WideResNet(**arguments)


def test_the_module_passes_its_arguments_on():
    options = {"depth": 16, "widen": 4, "width": 0.125, "in_channels": 1, "norm_momentum": 0.2}
    module = MultiHeadWideResNet((2, 3), **options)
    same = WideResNet(16, 4, 0.125, 1, 0.2)
    assert [tuple(p.shape) for p in module.trunk.parameters()] == [tuple(p.shape) for p in same.parameters()]
    assert {norm.momentum for norm in parts(module.trunk, nn.BatchNorm2d)} == {0.2}
    assert module(images(2, channels=1)).shape == (2, 2)
