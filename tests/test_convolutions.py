import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from auxlight.convolutions import ConvolutionOutputs

NETWORKS = {
    "plain": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Tanh(), nn.Conv2d(4, 5, 3, bias=False)),
    "bias": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Conv2d(4, 5, 3)),
    "strided, dilated, grouped": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 6, 3, 2, 2, 2, groups=2), nn.Conv2d(6, 2, 1)
    ),
    "padded": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Conv2d(4, 4, 3, padding_mode="reflect")),
    "frozen weight": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), frozen(nn.Conv2d(4, 4, 3), "weight"), nn.Tanh()),
    "frozen bias": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), frozen(nn.Conv2d(4, 4, 3), "bias"), nn.Tanh()),
    "frozen layer": lambda: nn.Sequential(frozen(nn.Conv2d(3, 4, 3), "weight", "bias"), nn.Conv2d(4, 4, 3)),
    "one layer twice": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), *[nn.Conv2d(4, 4, 3)] * 2, nn.Tanh()),
    "ReLU in place": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)),
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(True), nn.Conv2d(4, 4, 3)),
}


def frozen(layer, *names):
    for name in names:
        getattr(layer, name).requires_grad_(False)
    return layer


class CountConvolutions(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten.convolution.default
        return func(*args, **(kwargs or {}))


def pushed(network, image, kept=None):
    """Output and tangent of the network along fixed directions, and the convolutions that it took."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), forward_ad.dual_level():
        parameters = {
            name: forward_ad.make_dual(p.detach(), torch.randn(p.shape, generator=generator, dtype=p.dtype))
            for name, p in sorted(network.named_parameters())
            if p.requires_grad
        }
        with CountConvolutions() as counted, (kept or ConvolutionOutputs(1.0)).replayed():
            output = functional_call(network, parameters, (image,), tie_weights=False)  # a layer's values stay out
        return *forward_ad.unpack_dual(output), counted.count


def recorded(network, image, share=1.0):
    kept = ConvolutionOutputs(share)
    with kept.recorded():
        network(image)
    return kept


@pytest.mark.parametrize("kind", NETWORKS)
def test_outputs_and_tangents_are_those_of_a_pass_without(kind):
    torch.manual_seed(0)
    network, image = NETWORKS[kind]().double(), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    output, tangent, _ = pushed(network, image, recorded(network, image))
    expected, expected_tangent, _ = pushed(network, image)
    assert torch.equal(output, expected)
    torch.testing.assert_close(tangent, expected_tangent, rtol=1e-12, atol=1e-12)


def test_a_convolution_of_a_tangent_takes_two_instead_of_three():
    network, image = NETWORKS["one layer twice"](), torch.randn(2, 3, 8, 8)
    assert pushed(network, image)[2] == 3 * 3
    assert pushed(network, image, recorded(network, image))[2] == 3 + 2 + 2  # of the first the image has no tangent


def test_the_smallest_outputs_are_kept_until_their_share_is_full():
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1))
    image = torch.randn(2, 3, 32, 32)  # outputs of 16², 8², 4² positions
    for share, expected in ((0, "---"), (0.04, "---"), (0.05, "--+"), (0.25, "-++"), (1, "+++")):
        kept = recorded(network, image, share).kept
        assert "".join("-" if output is None else "+" for output in kept) == expected


def test_of_outputs_of_one_size_the_deepest_is_kept():
    network = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    assert [output is None for output in recorded(network, torch.randn(2, 3, 8, 8), 0.5).kept] == [True, True, False]


def test_what_a_later_operation_overwrites_is_not_kept():
    network = NETWORKS["ReLU in place"]()
    assert [output is None for output in recorded(network, torch.randn(2, 3, 8, 8)).kept] == [False, True]


def test_what_was_kept_serves_any_number_of_passes():
    network, image = NETWORKS["batch norm"](), torch.randn(2, 3, 8, 8)
    kept = recorded(network, image)
    first, second = pushed(network, image, kept), pushed(network, image, kept)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


def test_half_precision_of_the_recorded_pass_does_not_enter():
    network, image = NETWORKS["batch norm"](), torch.randn(2, 3, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        kept = recorded(network, image)
    assert all(output is None or output.dtype is torch.bfloat16 for output in kept.kept)
    for got, expected in zip(pushed(network, image, kept), pushed(network, image), strict=True):
        assert torch.equal(torch.as_tensor(got), torch.as_tensor(expected))


def test_nothing_kept_is_a_pass_as_usual():
    network, image = NETWORKS["plain"](), torch.randn(2, 3, 8, 8)
    with torch.no_grad(), ConvolutionOutputs(1.0).replayed():
        assert torch.equal(network(image), network(image))
