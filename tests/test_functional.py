"""The equations against 60-digit decimal arithmetic, which has neither overflow nor cancellation to hide."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

import pytest
import torch
from torch import Tensor

from auxlight.functional import batch_entropy, decided_label, focal_loss, masked_softmax, sample_weight

GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.0)
LOGITS = {
    "ordinary": [[0.3, -1.2, 2.0, 0.0], [-0.7, 0.1, 0.2, 1.5]],
    "saturated": [[20.0, 0.0, -3.0, 1.0], [-40.0, 40.0, 0.0, 0.0]],
    "extreme": [[1e4, -1e4, 0.0, 9.99e3], [-1e4, -1e4, -1e4, 1e4]],
}
SOFT = [[0.1, 0.2, 0.3, 0.4], [0.0, 0.5, 0.25, 0.25]]
DTYPES = {torch.float64: 1e-13, torch.float32: 1e-5, torch.bfloat16: 3e-2}


def exact_focal(logits: Sequence[Decimal], target: Sequence[float], gamma: float) -> Decimal:
    powers = [z.exp() for z in logits]
    total = sum(powers)
    loss = Decimal(0)
    for k, share in enumerate(target):
        miss = sum(powers[:k] + powers[k + 1 :]) / total
        loss -= Decimal(share) * miss ** Decimal(gamma) * (powers[k] / total).ln()
    return loss


def exact_masked_softmax(logits: Sequence[Decimal], mask: Sequence[bool]) -> list[Decimal]:
    powers = [z.exp() if inside else Decimal(0) for z, inside in zip(logits, mask, strict=True)]
    return [power / sum(powers) for power in powers]


def decimals(row: Sequence[float]) -> list[Decimal]:
    return [Decimal(z) for z in row]


def central_differences(function: Callable[[list[Decimal]], Decimal], row: Sequence[float]) -> list[float]:
    step = Decimal("1e-20")
    slopes = []
    for k in range(len(row)):
        above, below = decimals(row), decimals(row)
        above[k] += step
        below[k] -= step
        slopes.append(float((function(above) - function(below)) / (2 * step)))
    return slopes


@pytest.fixture(autouse=True)
def _digits():
    with localcontext(prec=60):
        yield


def one_hot(labels: Sequence[int], classes: int) -> list[list[float]]:
    return [[float(k == label) for k in range(classes)] for label in labels]


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("labels", [None, (0, 1), (1, 2), (3, 3)])
class TestFocalLoss:
    def case(self, name: str, labels: tuple[int, int] | None) -> tuple[Tensor, Tensor, list[list[float]]]:
        logits = torch.tensor(LOGITS[name], dtype=torch.float64)
        if labels is None:
            return logits, torch.tensor(SOFT, dtype=torch.float64), SOFT
        return logits, torch.tensor(labels), one_hot(labels, 4)

    def test_value(self, gamma, name, labels):
        logits, target, shares = self.case(name, labels)
        expected = [float(exact_focal(decimals(z), t, gamma)) for z, t in zip(LOGITS[name], shares, strict=True)]
        assert focal_loss(logits, target, gamma).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)

    def test_gradient(self, gamma, name, labels):
        logits, target, shares = self.case(name, labels)
        focal_loss(logits.requires_grad_(), target, gamma).sum().backward()
        for row, t, gradient in zip(LOGITS[name], shares, logits.grad, strict=True):
            expected = central_differences(lambda z, t=t: exact_focal(z, t, gamma), row)
            assert gradient.tolist() == pytest.approx(expected, rel=1e-10, abs=1e-13)

    def test_low_precision_gradient_is_finite(self, gamma, name, labels):
        for dtype in (torch.float32, torch.bfloat16):
            logits, target, _ = self.case(name, labels)
            logits = logits.to(dtype).requires_grad_()
            focal_loss(logits, target if labels else target.to(dtype), gamma).sum().backward()
            assert logits.grad.isfinite().all()


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_loss_gradcheck_in_logits_and_targets(gamma):
    logits = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = torch.tensor([*SOFT, [0.4, 0.3, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z, t: focal_loss(z, t, gamma), (logits, target))
    assert torch.autograd.gradcheck(lambda z: focal_loss(z, torch.tensor([0, 3, 1]), gamma), (logits,))


def test_focal_loss_defaults_to_gamma_two():
    # p = 1/2: (1/2)² log 2.
    assert focal_loss(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(math.log(2) / 4)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.items())
def test_focal_loss_keeps_the_dtype(gamma, dtype, tolerance):
    logits = torch.tensor(LOGITS["ordinary"], dtype=dtype)
    soft = focal_loss(logits, torch.tensor(SOFT, dtype=dtype), gamma)
    hard = focal_loss(logits, torch.tensor([0, 1]), gamma)
    assert soft.dtype == hard.dtype == dtype
    for loss, shares in ((soft, SOFT), (hard, one_hot((0, 1), 4))):
        expected = [float(exact_focal(decimals(z), t, gamma)) for z, t in zip(LOGITS["ordinary"], shares, strict=True)]
        assert loss.tolist() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_loss_ignores_class_order_sample_order_and_shifts(gamma):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 5, dtype=torch.float64, generator=generator)
    target = torch.rand(6, 5, dtype=torch.float64, generator=generator)
    loss = focal_loss(logits, target, gamma)
    classes, samples = torch.tensor([3, 1, 4, 0, 2]), torch.tensor([5, 0, 3, 1, 2, 4])
    torch.testing.assert_close(focal_loss(logits[:, classes], target[:, classes], gamma), loss)
    torch.testing.assert_close(focal_loss(logits[samples], target[samples], gamma), loss[samples])
    torch.testing.assert_close(focal_loss(logits + 7, target, gamma), loss)


@pytest.mark.parametrize("name", LOGITS)
@pytest.mark.parametrize("mask", [[[1, 1, 0, 0], [0, 0, 1, 1]], [[0, 1, 1, 1], [0, 1, 0, 0]], [[1] * 4, [1, 0, 1, 1]]])
def test_masked_softmax_value_and_gradient(name, mask):
    logits = torch.tensor(LOGITS[name], dtype=torch.float64, requires_grad=True)
    inside = torch.tensor(mask, dtype=torch.bool)
    p = masked_softmax(logits, inside)
    weights = [1.0, -2.0, 3.0, 0.5]
    (p * torch.tensor(weights)).sum().backward()
    for i, row in enumerate(LOGITS[name]):
        expected = [float(x) for x in exact_masked_softmax(decimals(row), mask[i])]
        assert p[i].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-300)

        def weighted(z, i=i):
            return sum(Decimal(w) * x for w, x in zip(weights, exact_masked_softmax(z, mask[i]), strict=True))

        assert logits.grad[i].tolist() == pytest.approx(central_differences(weighted, row), rel=1e-10, abs=1e-14)
    assert (p[~inside] == 0).all()


def test_masked_softmax_gradcheck():
    logits = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 0, 1], [0, 0, 1, 1, 0]], dtype=torch.bool)
    assert torch.autograd.gradcheck(lambda z: masked_softmax(z, mask), (logits,))


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.items())
def test_masked_softmax_keeps_the_dtype(dtype, tolerance):
    p = masked_softmax(torch.tensor([[1.0, 0.0, 5.0]], dtype=dtype), torch.tensor([[True, True, False]]))
    assert p.dtype == dtype
    assert p[0].tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1), 0], rel=tolerance)


def test_masked_softmax_sees_its_block_alone_in_any_order():
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mask = (torch.arange(6) < 4).expand(4, 6)
    p = masked_softmax(logits, mask)
    elsewhere = torch.where(mask, logits, torch.tensor(1e4, dtype=torch.float64))
    torch.testing.assert_close(masked_softmax(elsewhere, mask), p, rtol=0, atol=0)
    order = torch.tensor([5, 2, 0, 3, 4, 1])
    torch.testing.assert_close(masked_softmax(logits[:, order], mask[:, order]), p[:, order])


def test_papers_softened_label():
    """A one-hot label in a block of five, as the authors feed it: 0.405 for the chosen, 0.149 for the others."""
    p = masked_softmax(torch.eye(10)[[7]], (torch.arange(10) >= 5)[None])
    assert p[0].tolist() == pytest.approx([0] * 5 + [0.149, 0.149, 0.405, 0.149, 0.149], abs=5e-4)


def negative_entropy(rows: list[list[float]]) -> float:
    total = 0.0
    for column in zip(*rows, strict=True):
        mean = math.fsum(column) / len(column)
        total += mean * math.log(mean) if mean > 0 else 0.0
    return total


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.items())
def test_batch_entropy_value_and_dtype(dtype, tolerance):
    rows = [[0.7, 0.2, 0.1, 0.0], [0.25, 0.25, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]]
    entropy = batch_entropy(torch.tensor(rows, dtype=dtype))
    assert entropy.dtype == dtype and entropy.shape == ()
    assert entropy.item() == pytest.approx(negative_entropy(rows), rel=tolerance)


@pytest.mark.parametrize("classes", [1, 2, 5, 100])
def test_batch_entropy_range(classes):
    spread = torch.eye(classes, dtype=torch.float64)
    assert batch_entropy(spread).item() == pytest.approx(-math.log(classes), abs=1e-12)
    assert batch_entropy(spread[[0] * 7]).item() == 0
    some = torch.randn(9, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).softmax(-1)
    assert -math.log(classes) - 1e-12 <= batch_entropy(some).item() <= 1e-12


def test_batch_entropy_judges_the_mean_not_the_samples():
    sharp_but_varied = torch.eye(4)
    soft_and_equal = torch.full((4, 4), 0.25)
    torch.testing.assert_close(batch_entropy(sharp_but_varied), batch_entropy(soft_and_equal))


def test_batch_entropy_gradient():
    logits = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: batch_entropy(z.softmax(-1)), (logits,))
    p = logits.detach().softmax(-1).requires_grad_()
    batch_entropy(p).backward()
    rows, step = p.tolist(), 1e-6
    for i in range(5):
        for k in range(4):
            above, below = [list(row) for row in rows], [list(row) for row in rows]
            above[i][k] += step
            below[i][k] -= step
            slope = (negative_entropy(above) - negative_entropy(below)) / (2 * step)
            assert p.grad[i, k].item() == pytest.approx(slope, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_entropy_gradient_is_finite_for_unused_classes(dtype):
    unused = torch.eye(4, dtype=dtype)[[0, 0, 1]].requires_grad_()
    batch_entropy(unused).backward()
    assert unused.grad.isfinite().all()
    extreme = torch.tensor(LOGITS["extreme"], dtype=dtype, requires_grad=True)
    batch_entropy(extreme.softmax(-1)).backward()
    assert extreme.grad.isfinite().all()


def test_batch_entropy_ignores_order():
    p = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(4)).softmax(-1)
    entropy = batch_entropy(p)
    torch.testing.assert_close(batch_entropy(p.flip(0)), entropy)
    torch.testing.assert_close(batch_entropy(p[:, [2, 0, 3, 1]]), entropy)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES.items())
def test_sample_weight_value_and_dtype(dtype, tolerance):
    levels = [k / 20 for k in range(21)]
    weight = sample_weight(torch.tensor(levels, dtype=dtype))
    assert weight.dtype == dtype
    # An error δ in u is an error 10·log 2·δ in w, relatively.
    assert weight.tolist() == pytest.approx([2.0 ** (10 * u - 5) for u in levels], rel=2 * tolerance)
    assert weight[[0, 10, 20]].tolist() == [1 / 32, 1.0, 32.0]


def test_sample_weight_with_other_exponents():
    weight = sample_weight(torch.tensor([[0.0, 0.25], [0.5, 1.0]], dtype=torch.float64), low=-3, high=5)
    assert weight.tolist() == [[2**-3, 2**-1], [2.0, 2.0**5]]


def test_sample_weight_gradient():
    level = torch.linspace(0, 1, 7, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(sample_weight, (level,))
    sample_weight(level).sum().backward()
    for u, slope in zip(level.tolist(), level.grad.tolist(), strict=True):
        assert slope == pytest.approx((2 ** (10 * (u + 1e-6) - 5) - 2 ** (10 * (u - 1e-6) - 5)) / 2e-6, rel=1e-7)


def test_a_label_is_decided_where_one_class_is_the_most_probable():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.5, 0.5, 0.0], [1 / 3] * 3, [0.0, 0.0, 1.0]])
    assert decided_label(probabilities).tolist() == [1, -1, -1, 2]
    assert decided_label(torch.ones(2, 1)).tolist() == [0, 0]
