import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from auxlight import tangents
from auxlight.tangents import Tangents

KINDS = {
    "vectors": (nn.BatchNorm1d, (6, 4)),
    "sequences": (nn.BatchNorm1d, (6, 4, 5)),
    "images": (nn.BatchNorm2d, (6, 4, 3, 5)),
    "volumes": (nn.BatchNorm3d, (4, 4, 2, 3, 2)),
}
MEASURES = {"fused": Tangents, "torch's": nullcontext}


def layer_and_image(kind="images", dtype=torch.float64, **arguments):
    layer, shape = KINDS[kind]
    layer = layer(shape[1], **arguments)
    for part in (*layer.parameters(), *(buffer for buffer in layer.buffers() if buffer.is_floating_point())):
        nn.init.uniform_(part, 0.5, 2)
    return layer.to(dtype), 3 + 2 * torch.randn(shape, dtype=dtype)


def pushed(block, layer, image, moving=("image", "weight", "bias")):
    """Output, tangent and buffers of a layer inside `block`; what is not `moving` has no tangent."""
    layer, generator = copy.deepcopy(layer), torch.Generator().manual_seed(1)

    def dual(name, value):
        tangent = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        return forward_ad.make_dual(value, tangent) if name in moving else value

    with forward_ad.dual_level():
        parameters = {name: dual(name, p.detach()) for name, p in layer.named_parameters()}
        image = dual("image", image)
        with block():
            output = torch.func.functional_call(layer, parameters, (image,))
        output, tangent = forward_ad.unpack_dual(output)
    return output, tangent, dict(layer.named_buffers())


def assert_same(layer, image, tolerance=1e-12, **arguments):
    fused, expected = (pushed(block, layer, image, **arguments) for block in MEASURES.values())
    torch.testing.assert_close(fused, expected, rtol=tolerance, atol=tolerance)
    return fused


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("tracked", [True, False])
def test_output_tangent_and_statistics_are_torchs(kind, affine, tracked):
    layer, image = layer_and_image(kind, affine=affine, track_running_stats=tracked)
    _, tangent, buffers = assert_same(layer, image)
    assert tangent.abs().max() > 0.1
    assert bool(buffers) is tracked
    assert all(not torch.equal(value, dict(layer.named_buffers())[name]) for name, value in buffers.items())


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_keeps_its_digits(kind):
    assert_same(*layer_and_image(kind, torch.float32), tolerance=2e-5)


@pytest.mark.parametrize(
    "moving",
    [
        ("image",),
        ("weight",),
        ("bias",),
        ("image", "weight"),
        ("image", "bias"),
        ("weight", "bias"),
    ],
    ids=" ".join,
)
def test_what_is_frozen_has_no_part_in_the_tangent(moving):
    _, tangent, _ = assert_same(*layer_and_image(), moving=moving)
    assert tangent.any()


def test_where_nothing_has_a_tangent_the_output_has_none():
    layer, image = layer_and_image()
    for block in MEASURES.values():
        with torch.no_grad(), forward_ad.dual_level(), block():
            assert forward_ad.unpack_dual(layer(image)).tangent is None


@pytest.mark.parametrize("moving", [("image",), ("weight", "bias")], ids=" ".join)
def test_a_weight_without_a_bias(moving):
    layer, image = layer_and_image()
    layer.bias = None
    assert_same(layer, image, moving=moving)


@pytest.mark.parametrize("arguments", [{"momentum": 0.7}, {"momentum": None}, {"eps": 0.3}], ids=str)
def test_momentum_and_epsilon_are_the_layers(arguments):
    assert_same(*layer_and_image(**arguments))


@pytest.mark.parametrize("tracked", [True, False])
def test_known_statistics_are_used_in_evaluation_mode(tracked):
    layer, image = layer_and_image(track_running_stats=tracked)
    _, tangent, buffers = assert_same(layer.eval(), image)
    assert tangent.any()
    assert all(torch.equal(value, dict(layer.named_buffers())[name]) for name, value in buffers.items())


def test_a_constant_channel_stays_finite():
    layer, image = layer_and_image()
    image[:, 1] = 2.5
    output, tangent, _ = assert_same(layer, image, tolerance=1e-10)  # divided by √ε: 1/σ is 300 there
    assert output.isfinite().all() and tangent.isfinite().all()
    torch.testing.assert_close(output[:, 1], layer.bias[1].detach().expand_as(output[:, 1]))


def test_a_single_value_per_channel_is_refused_as_by_torch():
    layer, image = layer_and_image("vectors")
    for block in MEASURES.values():
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            pushed(block, layer, image[:1])


def test_the_layout_of_the_image_does_not_matter():
    layer, image = layer_and_image()
    assert_same(layer, image.contiguous(memory_format=torch.channels_last))
    assert_same(layer, image.transpose(2, 3))


def test_a_chain_of_layers_has_the_derivative_of_finite_differences():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 5, 3, bias=False), nn.BatchNorm2d(5), nn.Tanh()
    ).double()
    image = torch.randn(5, 3, 6, 6, dtype=torch.float64)
    theta = {name: p.detach() for name, p in network.named_parameters()}
    direction = {name: torch.randn_like(p) for name, p in theta.items()}

    def at(distance):
        moved = {name: p + distance * direction[name] for name, p in theta.items()}
        return torch.func.functional_call(network, moved, (image,)).detach()

    with forward_ad.dual_level(), Tangents():
        dual = {name: forward_ad.make_dual(p, direction[name]) for name, p in theta.items()}
        tangent = forward_ad.unpack_dual(torch.func.functional_call(network, dual, (image,))).tangent.clone()
    torch.testing.assert_close(tangent, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-6, atol=1e-8)


def test_the_function_takes_keywords():
    _, image = layer_and_image()
    mean, variance = torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64)
    with forward_ad.dual_level(), Tangents():
        output = F.batch_norm(image, running_mean=mean, running_var=variance, training=True, momentum=1.0)
        output = forward_ad.unpack_dual(output).primal
    torch.testing.assert_close(output, F.batch_norm(image, None, None, training=True))
    torch.testing.assert_close(mean, image.mean((0, 2, 3)))
    torch.testing.assert_close(variance, image.var((0, 2, 3)))


def test_outside_the_block_nothing_is_redirected(monkeypatch):
    calls = []
    original = tangents._batch_norm
    monkeypatch.setattr(tangents, "_batch_norm", lambda *args, **rest: calls.append(args) or original(*args, **rest))
    layer, image = layer_and_image()
    function = F.batch_norm
    layer(image)
    with forward_ad.dual_level():
        with Tangents():
            layer(image)
            assert len(calls) == 1
        layer(image)
        with pytest.raises(ZeroDivisionError), Tangents():
            _ = 1 / 0
        layer(image)
    assert len(calls) == 1 and F.batch_norm is function


def test_other_functions_pass_through_the_block():
    x = torch.randn(4, 3, dtype=torch.float64)
    with Tangents():
        inside = F.layer_norm(x, (3,), eps=0.1), F.softmax(x, dim=1), x @ x.T
    torch.testing.assert_close(inside, (F.layer_norm(x, (3,), eps=0.1), F.softmax(x, dim=1), x @ x.T))
