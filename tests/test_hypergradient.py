import copy
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import SGD, Adam
from torch.utils.checkpoint import checkpoint

from auxlight import InputError
from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.convolutions import ConvolutionOutputs
from auxlight.functional import class_losses, focal_loss
from auxlight.hypergradient import DoubleBackward, LookAheadGradient, MetaProblem, NeumannGradient
from auxlight.influence import FiniteDifference, ForwardMode, gradient, losses_at, trainable
from auxlight.lookahead import LookAhead
from auxlight.networks import VGG

STEPS = {
    "plain": {},
    "weight decay": {"weight_decay": 0.1},
    "momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "damped": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
}


class Network(nn.Module):
    """Batch norm, a frozen layer, a tied layer, and dropout where asked for."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Tanh(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.dropout = nn.Dropout(dropout)
        self.primary, self.auxiliary = nn.Linear(4, 2), nn.Linear(4, 6)

    def forward(self, batch):
        features = self.dropout(self.second(torch.tanh(self.first(self.frozen(self.trunk(batch.image))))))
        return focal_loss(self.primary(features), batch.primary, 2.0), class_losses(self.auxiliary(features), 2.0)


def problem(dtype=torch.float64, size=8, **network):
    torch.manual_seed(1)
    batches = [
        Batch(torch.randn(size, 3, 6, 6, dtype=dtype), torch.randint(2, (size,)), None, torch.arange(size))
        for _ in range(2)
    ]
    probabilities = torch.randn(size, 6, dtype=dtype).softmax(1)
    target = AuxiliaryTarget(probabilities, 0.2 + 3 * torch.rand(size, dtype=dtype))
    return Network(**network).to(dtype), *batches, target


def started(network, batch, target, lr=0.3, **arguments):
    """An optimizer that has taken two steps, so that its momentum buffers hold something."""
    optimizer = SGD((p for p in network.parameters() if p.requires_grad), lr=lr, **arguments)
    for _ in range(2):
        optimizer.zero_grad()
        loss_of(network(batch), target, 1.0).backward()
        optimizer.step()
    return optimizer


def loss_of(losses, target, aux_weight):
    """L_pri + λ · mean_i w_i Σ_k t_ik ℓ_ik, written out."""
    primary, auxiliary = losses
    terms = [
        primary[i] + aux_weight * target.weight[i] * sum(t * loss for t, loss in zip(ts, row, strict=True))
        for i, (ts, row) in enumerate(zip(target.probabilities, auxiliary, strict=True))
    ]
    return sum(terms) / len(terms)


class OfOne(NamedTuple):
    probabilities: torch.Tensor
    weight: torch.Tensor
    loss: torch.Tensor


def of_one(hypergradient, network, batch, target, meta, step, aux_weight=1.0):
    """The hypergradient through one step."""
    found = hypergradient(MetaProblem(network, [batch], [target], [meta], step, aux_weight, seed=1))
    (slopes,) = found.targets
    return OfOne(*slopes, found.loss)


def assert_close(one, other, rtol):
    for name in ("probabilities", "weight"):
        a, b = getattr(one, name), getattr(other, name)
        assert (a - b).norm() <= rtol * b.norm(), (name, float((a - b).norm() / b.norm()))
    torch.testing.assert_close(one.loss, other.loss)


@pytest.mark.parametrize("arguments", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_exact_is_double_backward(arguments, dtype, rtol):
    network, batch, meta, target = problem(dtype)
    step = LookAhead(started(network, batch, target, **arguments))
    for images in (batch, meta):
        exact = of_one(LookAheadGradient(), network, batch, target, images, step, aux_weight=0.7)
        reference = of_one(DoubleBackward(), network, batch, target, images, step, aux_weight=0.7)
        assert reference.probabilities.norm() > 0
        assert_close(exact, reference, rtol)


@pytest.mark.parametrize("arguments", STEPS.values(), ids=STEPS.keys())
@pytest.mark.parametrize("fresh", [False, True])
def test_three_steps_ahead_are_double_backward_through_three_steps(arguments, fresh):
    network, batch, meta, target = problem(dropout=0.3)
    optimizer = started(network, batch, target, **arguments)
    if fresh:  # the momentum buffers begin within the look-ahead
        optimizer = SGD((p for p in network.parameters() if p.requires_grad), lr=0.3, **arguments)
    other = AuxiliaryTarget(target.probabilities.flip(0), target.weight.flip(0))
    ahead = MetaProblem(
        network, [batch, meta, batch], [target, other, other], [meta, batch], LookAhead(optimizer), 0.7, seed=1
    )
    exact, reference = LookAheadGradient()(ahead), DoubleBackward()(ahead)
    torch.testing.assert_close(exact.loss, reference.loss)
    for one, two in zip(exact.targets, reference.targets, strict=True):
        for got, expected in zip(one, two, strict=True):
            assert expected.norm() > 0
            assert (got - expected).norm() <= 1e-9 * expected.norm()


def test_steps_that_were_taken_really_have_the_gradient_of_a_look_ahead():
    network, batch, meta, target = problem()
    optimizer = started(network, batch, target, momentum=0.9, weight_decay=0.01)
    ahead = MetaProblem(network, [batch], [target], [meta], LookAhead(optimizer), 0.7)
    expected = LookAheadGradient()(ahead)
    before = ahead.step.start(network)
    before = before._replace(parameters={name: value.clone() for name, value in before.parameters.items()})
    optimizer.zero_grad()
    kept = ConvolutionOutputs(1.0)
    with kept.recorded():
        loss = loss_of(network(batch), target, 0.7)
    loss.backward()
    optimizer.step()
    rules = ahead.step.rules(network)
    got = LookAheadGradient().of_steps(ahead, rules, [before, ahead.step.start(network)], kept)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


def test_exact_is_double_backward_on_vgg16():
    class Joint(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk = VGG(16, 0.0625)
            self.primary, self.auxiliary = nn.Linear(32, 4), nn.Linear(32, 20)

        def forward(self, batch):
            features = self.trunk(batch.image)
            return focal_loss(self.primary(features), batch.primary), class_losses(self.auxiliary(features))

    torch.manual_seed(0)
    network = Joint()
    batch = Batch(torch.randn(16, 3, 32, 32), torch.randint(4, (16,)), None, torch.arange(16))
    target = AuxiliaryTarget(torch.randn(16, 20).softmax(1), torch.rand(16) + 0.5)
    step = LookAhead(SGD(network.parameters(), lr=0.01))
    exact, reference = (
        of_one(kind, network, batch, target, batch, step) for kind in (LookAheadGradient(), DoubleBackward())
    )
    assert_close(exact, reference, 1e-5)


@pytest.mark.parametrize("arguments", STEPS.values(), ids=STEPS.keys())
def test_exact_agrees_with_redoing_the_step_on_a_perturbed_target(arguments):
    network, batch, meta, target = problem()
    optimizer = started(network, batch, target, **arguments)
    exact = of_one(LookAheadGradient(), network, batch, target, meta, LookAhead(optimizer), aux_weight=0.7)

    def loss_after_a_real_step(perturbed):
        again, stepper = copy.deepcopy((network, optimizer))
        stepper.zero_grad()
        loss_of(again(batch), perturbed, 0.7).backward()
        stepper.step()
        with torch.no_grad():
            return float(again(meta)[0].mean())

    assert loss_after_a_real_step(target) == pytest.approx(float(exact.loss), rel=1e-12)
    h = 1e-4
    for part, index in (("probabilities", (0, 0)), ("probabilities", (5, 3)), ("weight", (2,)), ("weight", (7,))):
        values = []
        for sign in (1, -1):
            moved = getattr(target, part).clone()
            moved[index] += sign * h
            values.append(loss_after_a_real_step(target._replace(**{part: moved})))
        finite = (values[0] - values[1]) / (2 * h)
        assert float(getattr(exact, part)[index]) == pytest.approx(finite, rel=1e-6, abs=1e-11)


def test_weights_have_gradients_of_their_own():
    """A weight that is one number for the batch would have one."""
    network, batch, _, target = problem()
    exact = of_one(LookAheadGradient(), network, batch, target, batch, LookAhead(started(network, batch, target)))
    assert exact.weight.shape == (8,)
    assert exact.weight.std() > 0.1 * exact.weight.abs().mean()


def test_nothing_of_the_network_is_touched():
    network, batch, meta, target = problem(dropout=0.5)
    step = LookAhead(started(network, batch, target))
    network.zero_grad()
    before = copy.deepcopy(network.state_dict())
    for kind in (LookAheadGradient(), LookAheadGradient(FiniteDifference()), DoubleBackward(), NeumannGradient()):
        of_one(kind, network, batch, target, meta, step)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(p.grad is None for p in network.parameters())
    assert network.training


@pytest.mark.parametrize(("kind", "first", "last"), [(LookAheadGradient, 0, 2), (NeumannGradient, 1, 2)])
def test_dropout_masks_of_the_step_are_those_of_the_derivative(kind, first, last):
    network, batch, _, target = problem(dropout=0.5)
    seen = []
    network.dropout.register_forward_hook(lambda module, inputs, output: seen.append((output == 0).detach().clone()))
    of_one(kind(), network, batch, target, batch, LookAhead(SGD(network.parameters(), lr=0.1)))
    assert len(seen) == 3
    assert torch.equal(seen[first], seen[last])
    assert seen[first].any() and not seen[first].all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_finite_differences_approach_the_exact_derivative(dropout):
    network, batch, _, target = problem(dropout=dropout)
    step = LookAhead(started(network, batch, target))
    exact = of_one(LookAheadGradient(), network, batch, target, batch, step)

    def error(epsilon):
        estimate = of_one(LookAheadGradient(FiniteDifference(epsilon)), network, batch, target, batch, step)
        return float((estimate.probabilities - exact.probabilities).norm() / exact.probabilities.norm())

    assert error(1e-3) < 1e-5
    assert error(1e-2) == pytest.approx(100 * error(1e-3), rel=0.1)  # second order


def test_frozen_parameters_stay_out_and_tied_ones_count_once():
    names = trainable(problem()[0]).keys()
    assert not any(name.startswith("frozen") for name in names)
    assert "first.weight" in names and "second.weight" not in names


def test_a_layer_that_is_used_twice_is_left_as_it_was():
    network, batch, meta, target = problem()
    network.trunk = nn.Sequential(nn.Conv2d(3, 4, 3), *[nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)] * 2, *network.trunk[-2:])
    network.double()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    step = LookAhead(SGD(network.parameters(), lr=0.3))
    exact, reference = (
        of_one(kind(), network, batch, target, meta, step) for kind in (LookAheadGradient, DoubleBackward)
    )
    assert_close(exact, reference, 1e-9)
    torch.testing.assert_close(dict(network.state_dict()), before, rtol=0, atol=0)
    assert all(parameter.requires_grad for parameter in network.trunk.parameters())


def test_other_optimizers_lend_their_rate_to_a_plain_step():
    network, batch, meta, target = problem()
    adam = of_one(LookAheadGradient(), network, batch, target, meta, LookAhead(Adam(network.parameters(), lr=0.2)))
    sgd = of_one(LookAheadGradient(), network, batch, target, meta, LookAhead(SGD(network.parameters(), lr=0.2)))
    own = of_one(
        LookAheadGradient(), network, batch, target, meta, LookAhead(SGD(network.parameters(), lr=9.0), lr=0.2)
    )
    assert_close(adam, sgd, 0)
    assert_close(own, sgd, 0)


def test_parameter_groups_have_rates_of_their_own():
    network, batch, meta, target = problem()
    groups = [{"params": network.trunk.parameters(), "lr": 0.05}, {"params": network.primary.parameters(), "lr": 0.5}]
    step = LookAhead(SGD(groups, lr=0.1))
    exact, reference = (
        of_one(kind, network, batch, target, meta, step) for kind in (LookAheadGradient(), DoubleBackward())
    )
    assert_close(exact, reference, 1e-9)


class Quadratic(nn.Module):
    """Losses ½ (θ − c)ᵀ A (θ − c): the optimum and its derivative are known in closed form."""

    def __init__(self, size=4, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def random(*shape):
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        def curvature():
            root = random(size, size)
            return root @ root.T / size + 0.5 * torch.eye(size, dtype=torch.float64)

        self.theta = nn.Parameter(random(size))
        self.curvatures = [curvature() for _ in range(classes + 1)]
        self.centres = [random(size) for _ in range(classes + 1)]

    def forward(self, batch):
        bowls = [
            0.5 * (self.theta - c) @ a @ (self.theta - c) for a, c in zip(self.curvatures, self.centres, strict=True)
        ]
        ones = torch.ones(len(batch.image), dtype=torch.float64)
        return bowls[0] * ones, torch.stack(bowls[1:]) * ones[:, None]


def test_the_implicit_gradient_approaches_the_closed_form_as_the_series_grows():
    network = Quadratic()
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), None, torch.arange(2))
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]], dtype=torch.float64)
    target = AuxiliaryTarget(probabilities, torch.tensor([1.0, 2.0], dtype=torch.float64))
    strength = (target.weight[:, None] * probabilities).mean(0)
    a, c = network.curvatures, network.centres
    hessian = a[0] + sum(s * a[k + 1] for k, s in enumerate(strength))
    slope = a[0] @ (network.theta.detach() - c[0])
    inverse = torch.linalg.solve(hessian, slope)
    per_class = [-inverse @ a[k + 1] @ (network.theta.detach() - c[k + 1]) for k in range(3)]
    expected = target.weight[:, None] * torch.stack(per_class) / 2
    eta = 0.9 / float(torch.linalg.eigvalsh(hessian).max())
    step = LookAhead(SGD(network.parameters(), lr=1.0))

    def error(terms, **arguments):
        implicit = of_one(NeumannGradient(terms, eta, **arguments), network, batch, target, batch, step)
        return float((implicit.probabilities - expected).norm() / expected.norm())

    errors = [error(terms) for terms in (0, 3, 10, 30, 300)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-10
    assert error(300, damping=0.1) > 1e-3  # damping solves another system


def test_the_implicit_gradient_of_no_further_term_is_a_plain_look_ahead_at_the_present_point():
    network, batch, meta, target = problem()
    leaves = {name: p.requires_grad_() for name, p in trainable(network).items()}
    slope = torch.autograd.grad(losses_at(network, leaves, meta)[0].mean(), list(leaves.values()), allow_unused=True)
    direction = {
        name: torch.zeros_like(p) if g is None else 0.01 * g for (name, p), g in zip(leaves.items(), slope, strict=True)
    }
    derivative = ForwardMode()(network, trainable(network), direction, batch)
    implicit = of_one(
        NeumannGradient(0, 0.01), network, batch, target, meta, LookAhead(SGD(network.parameters(), lr=1.0))
    )
    torch.testing.assert_close(implicit.probabilities, -target.weight[:, None] * derivative / len(derivative))


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_an_operation_without_forward_mode_gets_a_sentence():
    class Odd(Network):
        def forward(self, batch):
            return super().forward(batch._replace(image=NoForwardMode.apply(batch.image * self.first.weight.sum())))

    torch.manual_seed(0)
    network, (_, batch, _, target) = Odd().double(), problem()
    step = LookAhead(SGD(network.parameters(), lr=0.1))
    with pytest.raises(InputError, match="FiniteDifference"):
        of_one(LookAheadGradient(), network, batch, target, batch, step)
    of_one(LookAheadGradient(FiniteDifference()), network, batch, target, batch, step)


@pytest.mark.parametrize("stopped", [torch.no_grad, torch.enable_grad])
@pytest.mark.parametrize("written", [False, True])
def test_what_a_network_computes_without_gradients_is_a_constant(stopped, written):
    class Gated(Network):
        def forward(self, batch):
            with stopped():
                gate = torch.sigmoid(self.trunk(batch.image).mean(1).max(0).values)
                if written:
                    gate = torch.empty_like(gate).copy_(gate) + torch.cat([gate[None]] * 2).mean()
            primary, auxiliary = super().forward(batch)
            return gate * primary, gate * auxiliary

    torch.manual_seed(0)
    network, (_, batch, meta, target) = Gated().double(), problem()
    step = LookAhead(SGD(network.parameters(), lr=0.1))
    exact, reference = (of_one(k, network, batch, target, meta, step) for k in (LookAheadGradient(), DoubleBackward()))
    assert_close(exact, reference, 1e-9)


@pytest.mark.parametrize("hypergradient", [LookAheadGradient(), NeumannGradient(), DoubleBackward()])
def test_gradient_checkpointing_is_refused(hypergradient):
    class Thrifty(Network):
        def forward(self, batch):
            features = checkpoint(self.trunk, batch.image, use_reentrant=False)
            return focal_loss(self.primary(features), batch.primary, 2.0), class_losses(self.auxiliary(features), 2.0)

    network, (_, batch, meta, target) = Thrifty().double(), problem()
    plain = gradient(network(batch)[0].mean(), {"w": network.trunk[0].weight})  # at its own parameters
    assert plain["w"].norm() > 0
    with pytest.raises(InputError, match=r"Found Sequential run again .* switch gradient checkpointing off"):
        of_one(hypergradient, network, batch, target, meta, LookAhead(SGD(network.parameters(), lr=0.1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LookAhead(SGD(Network().parameters(), lr=0.1), lr=0.0), "`lookahead_lr` must be positive"),
        (lambda: LookAhead(SGD(Network().parameters(), lr=0.1), lr=float("nan")), "`lookahead_lr`"),
        (lambda: FiniteDifference(0.0), "`epsilon`"),
        (lambda: LookAhead(SGD(Network().parameters(), lr=0.1, maximize=True)), "maximize"),
        (lambda: NeumannGradient(terms=-1), "terms=-1"),
        (lambda: NeumannGradient(eta=0.0), "eta=0.0"),
        (lambda: NeumannGradient(damping=-1.0), "damping=-1.0"),
    ],
)
def test_values_out_of_range_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_class_losses_are_the_focal_losses_of_hard_labels():
    logits = torch.randn(5, 4, dtype=torch.float64)
    for gamma in (0.0, 0.5, 2.0):
        expected = torch.stack([focal_loss(logits, torch.full((5,), k), gamma) for k in range(4)], 1)
        torch.testing.assert_close(class_losses(logits, gamma), expected)
    torch.testing.assert_close(class_losses(logits, 0.0), -F.log_softmax(logits, 1))
