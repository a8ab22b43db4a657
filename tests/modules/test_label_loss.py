import math

import pytest
import torch

from auxlight.batch import AuxiliaryTarget
from auxlight.hypergradient import TargetGradient
from auxlight.modules.label_loss import label_loss, normalized

MASK = torch.tensor([[1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool)  # ψ = 2, 3, 1


def random(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask_of(size, shift=0):
    return MASK[(torch.arange(size) + shift) % 3]


def slopes_of(size, seed):
    return TargetGradient(random(size, 6, seed=seed), random(size, seed=seed + 1))


class Labels:
    """A linear label network of a few images: logits x·A, weights exp(x·a)."""

    def __init__(self):
        self.parameters = [random(3, 6, seed=10).requires_grad_(), random(3, seed=11).requires_grad_()]

    def __call__(self, size, seed):
        x, mask = random(size, 3, seed=seed), mask_of(size)
        logits = (x @ self.parameters[0]).exp() * mask
        return AuxiliaryTarget(logits / logits.sum(1, keepdim=True), (x @ self.parameters[1]).exp())

    def gradient(self, loss):
        return torch.autograd.grad(loss, self.parameters, retain_graph=True, materialize_grads=True)


def alone(tensors):
    return dict(tensors)


def negative_entropy(probabilities):
    """Σ_k p̄_k log p̄_k, term by term."""
    means = [sum(column) / len(column) for column in probabilities.unbind(1)]
    return sum(mean * mean.log() for mean in means if mean > 0)


def written_out(targets, slopes, entropy_weight):
    linear = sum(
        slope.probabilities[i, k] * target.probabilities[i, k]
        for target, slope in zip(targets, slopes, strict=True)
        for i in range(len(target.weight))
        for k in range(6)
    )
    weights = sum((slope.weight * target.weight).sum() for target, slope in zip(targets, slopes, strict=True))
    entropies = [negative_entropy(target.probabilities) for target in targets]
    return linear + weights + entropy_weight * sum(entropies) / len(entropies)


@pytest.mark.parametrize("sizes", [(4,), (4, 4, 4), (5, 2)], ids=str)
@pytest.mark.parametrize("entropy_weight", [0.0, 0.2, 7.0])
def test_the_gradient_is_that_of_slopes_and_batch_entropy(sizes, entropy_weight):
    labels = Labels()
    targets = [labels(size, seed=number) for number, size in enumerate(sizes)]
    slopes = [slopes_of(size, seed=20 + number) for number, size in enumerate(sizes)]
    got = labels.gradient(label_loss(targets, slopes, entropy_weight, alone))
    expected = labels.gradient(written_out(targets, slopes, entropy_weight))
    assert all(g.any() for g in expected)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_labels_that_no_image_of_the_batch_may_have_change_nothing():
    """Two images of class 0: p̄ is zero on the other blocks."""
    logits = random(2, 2, seed=0).requires_grad_()
    gradients = []
    for classes in (2, 6):
        p = torch.nn.functional.pad(logits.softmax(1), (0, classes - 2))
        slopes = TargetGradient(torch.zeros(2, classes, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
        loss = label_loss([AuxiliaryTarget(p, torch.ones(2, dtype=torch.float64))], [slopes], 1.0, alone)
        gradients.append(torch.autograd.grad(loss, logits)[0])
    assert gradients[0].isfinite().all() and gradients[0].any()
    torch.testing.assert_close(*gradients)


def test_the_entropy_is_that_of_the_mean_label_over_two_devices():
    labels, slopes = Labels(), [slopes_of(4, seed=20), slopes_of(4, seed=30)]
    shares = [labels(4, seed=0), labels(4, seed=1)]
    means = [share.probabilities.detach().mean(0) for share in shares]
    assert not torch.allclose(*means)

    def device(rank):
        def average(tensors):
            assert not any(tensor.requires_grad for tensor in tensors.values())
            (name,) = tensors
            return {name: (tensors[name] + means[1 - rank]) / 2}

        return labels.gradient(label_loss([shares[rank]], [slopes[rank]], 0.2, average))

    both = AuxiliaryTarget(*(torch.cat(parts) for parts in zip(*shares, strict=True)))
    # The sum over a device's images is the mean over devices of twice that.
    halved = TargetGradient(*(torch.cat(parts) / 2 for parts in zip(*slopes, strict=True)))
    expected = labels.gradient(written_out([both], [halved], 0.2))
    for one, other, whole in zip(device(0), device(1), expected, strict=True):
        assert not torch.allclose(one, other)
        torch.testing.assert_close((one + other) / 2, whole, rtol=1e-12, atol=1e-14)


# --- normalized


def deviations(slopes, masks):
    """Of every in-block entry, from the mean of its block."""
    found = []
    for slope, mask in zip(slopes, masks, strict=True):
        for row, inside in zip(slope.probabilities, mask, strict=True):
            found += (row[inside] - row[inside].mean()).tolist()
    return torch.tensor(found, dtype=torch.float64)


def rms(values):
    return float(values.square().mean().sqrt())


@pytest.mark.parametrize("batches", [1, 3])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_root_mean_square_becomes_one_over_the_batch_size(batches, scale):
    masks = [mask_of(7, shift=1)] * batches
    slopes = [TargetGradient(*(scale * part for part in slopes_of(7, seed=number))) for number in range(batches)]
    scaled = normalized(slopes, masks, alone)
    assert rms(deviations(scaled, masks)) == pytest.approx(1 / 7, rel=1e-12)
    assert rms(torch.cat([slope.weight for slope in scaled])) == pytest.approx(1 / 7, rel=1e-12)


def test_labels_and_weights_have_one_positive_factor_each():
    slopes, masks = [slopes_of(6, seed=0), slopes_of(6, seed=5)], [mask_of(6)] * 2
    scaled = normalized(slopes, masks, alone)
    for part in ("probabilities", "weight"):
        factors = torch.stack([getattr(a, part) / getattr(b, part) for a, b in zip(scaled, slopes, strict=True)])
        assert (factors > 0).all()
        torch.testing.assert_close(factors, factors.flatten()[0].expand_as(factors))
    slopes[0] = slopes[0]._replace(weight=100 * slopes[0].weight)  # the weights' size is no matter of the labels
    again = normalized(slopes, masks, alone)
    torch.testing.assert_close([s.probabilities for s in again], [s.probabilities for s in scaled])


@pytest.mark.parametrize("factor", [1e-6, 0.3, 1e6])
def test_a_rescaling_of_the_slopes_changes_nothing(factor):
    slopes, mask = slopes_of(6, seed=0), mask_of(6)
    other = TargetGradient(factor * slopes.probabilities, factor**2 * slopes.weight)
    torch.testing.assert_close(
        normalized([other], [mask], alone), normalized([slopes], [mask], alone), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_slopes_stay_zero(dtype):
    slopes, mask = TargetGradient(torch.zeros(6, 6, dtype=dtype), torch.zeros(6, dtype=dtype)), mask_of(6)
    for part in normalized([slopes], [mask], alone)[0]:
        assert part.dtype == dtype and not part.any() and part.isfinite().all()
    some = TargetGradient(slopes.probabilities, torch.ones(6, dtype=dtype))
    scaled = normalized([some], [mask], alone)[0]
    assert not scaled.probabilities.any()
    torch.testing.assert_close(scaled.weight, torch.full((6,), 1 / 6, dtype=dtype))


def test_a_constant_of_each_image_does_not_change_the_factor():
    slopes, mask = slopes_of(6, seed=0), mask_of(6)
    constants = 50 * random(6, 1, seed=3)
    shifted = slopes._replace(probabilities=slopes.probabilities + constants * mask)
    one, other = (normalized([s], [mask], alone)[0].probabilities / s.probabilities for s in (slopes, shifted))
    torch.testing.assert_close(one, other, rtol=1e-10, atol=0)


def test_slopes_outside_the_block_do_not_change_the_factor():
    slopes, mask = slopes_of(6, seed=0), mask_of(6)
    other = slopes._replace(probabilities=torch.where(mask, slopes.probabilities, 1e3))
    one, two = (normalized([s], [mask], alone)[0].probabilities[mask] for s in (slopes, other))
    torch.testing.assert_close(one, two)


def test_blocks_of_one_class_have_nothing_to_learn():
    mask = torch.eye(6, dtype=torch.bool)
    labels = random(6, 6, seed=1).requires_grad_()
    p = labels.masked_fill(~mask, -torch.inf).softmax(1)
    scaled = normalized([slopes_of(6, seed=0)], [mask], alone)
    loss = label_loss([AuxiliaryTarget(p, torch.ones(6, dtype=torch.float64))], scaled, 0.0, alone)
    assert not torch.autograd.grad(loss, labels)[0].any()


def test_two_devices_share_one_factor():
    shares, masks = [slopes_of(6, seed=0), slopes_of(6, seed=5)], [mask_of(6)] * 2
    shares[1] = TargetGradient(*(10 * part for part in shares[1]))
    sent = []
    for slope, mask in zip(shares, masks, strict=True):
        normalized([slope], [mask], lambda tensors: sent.append(dict(tensors)) or dict(tensors))
    mean = {name: (sent[0][name] + sent[1][name]) / 2 for name in sent[0]}
    apart = [normalized([s], [m], lambda _: mean)[0] for s, m in zip(shares, masks, strict=True)]
    torch.testing.assert_close(apart, normalized(shares, masks, alone))  # as two batches of one device


def test_hard_labels_leave_the_entropy_of_unused_classes_bounded():
    soft = torch.full((10, 4), 0.25).requires_grad_()
    hard = torch.nn.functional.one_hot(torch.zeros(10, dtype=torch.int64), 4).float() + (soft - soft.detach())
    nothing = TargetGradient(torch.zeros(10, 4), torch.zeros(10))
    loss = label_loss([AuxiliaryTarget(hard, torch.ones(10))], [nothing], 1.0, dict)
    (slope,) = torch.autograd.grad(loss, soft)
    assert slope.abs().max() <= (math.log(20) + 1) / 10  # an unused class counts as half an image of ten
