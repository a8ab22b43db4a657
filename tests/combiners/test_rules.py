"""Each rule against another way to its numbers."""

import copy
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torch.optim import SGD
from torchjd.scalarization import DWA, UW

from auxlight import (
    ARML,
    AuxiNash,
    CombinationNetwork,
    DynamicWeightAverage,
    GradientCosine,
    GradNorm,
    InputError,
    OnlineAuxiliary,
    RandomWeights,
    SLGrad,
    UncertaintyWeighting,
)
from auxlight.combiners import TaskLosses
from auxlight.combiners.arml import least_squares_weights
from auxlight.errors import DivergedError
from tests.combiners.problems import Network, names, step


def bound(combiner, tasks=3):
    combiner.bind(names(tasks))
    return combiner.double()


def given(*rows):
    """Losses whose gradients are known, and the context in which they were made."""
    losses = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in rows]
    return TaskLosses(losses[0], tuple(losses[1:]), tuple(torch.ones_like(row) for row in losses[1:]))


MEANS = [[1.0, 3.0], [0.5, 0.1], [8.0, 4.0]]


def test_kendalls_value_and_gradients_are_torchjds():
    ours, theirs = bound(UncertaintyWeighting()), UW(3).double()
    for part in (ours.log_variances, theirs.log_var):
        part.data = torch.tensor([0.3, -1.2, 0.7]).double()
    losses = given(*MEANS)
    value = ours(losses, None)
    other = theirs(torch.tensor([2.0, 0.3, 6.0]).double())
    torch.testing.assert_close(value, other)
    value.backward()
    other.backward()
    torch.testing.assert_close(ours.log_variances.grad, theirs.log_var.grad)
    assert losses.primary.grad.tolist() == pytest.approx([0.5 * math.exp(-0.3) / 2] * 2)


def test_liebels_value_by_hand():
    ours = bound(UncertaintyWeighting("liebel"))
    ours.log_variances.data = torch.tensor([0.3, -1.2, 0.7]).double()
    expected = sum(
        loss / (2 * math.exp(s)) + math.log(1 + math.exp(s))
        for loss, s in zip([2, 0.3, 6], [0.3, -1.2, 0.7], strict=True)
    )
    assert ours(given(*MEANS), None).item() == pytest.approx(expected)


def test_uncertainties_settle_where_the_variance_is_the_loss():
    ours = bound(UncertaintyWeighting())
    optimizer = SGD(ours.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        ours(given(*MEANS), None).backward()
        optimizer.step()
    assert ours.log_variances.exp().tolist() == pytest.approx([2, 0.3, 6], rel=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_dwa_is_torchjds_over_epochs(temperature):
    network = Network()
    ours, theirs = bound(DynamicWeightAverage(temperature)), DWA(temperature)
    values = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(0)).double() + 0.1
    seen = []
    for epoch, batches in enumerate(values):
        for means in batches:
            loss = ours(given(*means[:, None].tolist()), network.context(epoch=epoch))
            torch.testing.assert_close(loss, theirs(means))
        theirs.step()
        seen.append(ours.weights.tolist())
    assert seen[0] == seen[1] == [1, 1, 1] and all(row != [1, 1, 1] for row in seen[2:])
    assert sum(seen[4]) == pytest.approx(3)


def test_dwa_goes_on_from_a_checkpoint():
    network = Network()
    whole, resumed = bound(DynamicWeightAverage()), bound(DynamicWeightAverage())
    for epoch in range(3):
        whole(given([1.0 + epoch], [2.0], [3.0 - epoch / 2]), network.context(epoch=epoch))
    resumed.load_state_dict(whole.state_dict())
    whole(given(*MEANS), network.context(epoch=3))
    resumed(given(*MEANS), network.context(epoch=3))
    assert torch.equal(whole.weights, resumed.weights) and whole.weights.tolist() != [1, 1, 1]


def test_dwa_begins_anew_in_another_fit():
    network, rule = Network(), bound(DynamicWeightAverage())
    for epoch in (0, 1, 2, 3, 0, 1):
        rule(given([1.0 + epoch], [2.0], [3.0]), network.context(epoch=epoch))
        assert (rule.weights.tolist() == [1, 1, 1]) == (epoch < 2)


def test_dwa_survives_a_loss_of_zero():
    network, rule = Network(), bound(DynamicWeightAverage())
    for epoch in range(5):
        assert torch.isfinite(rule(given([1.0], [0.0], [1e30]), network.context(epoch=epoch)))
    assert torch.isfinite(rule.weights).all()


def test_dwa_leaves_a_task_out_until_it_has_a_loss():
    """As clusters have, which are made after some epochs: its first one would be infinitely slow."""
    rule, pair, network = bound(DynamicWeightAverage()), bound(DynamicWeightAverage(), 2), Network()
    for epoch, late in enumerate([0.0, 0.0, 0.0, 0.5, 0.4, 0.3]):
        rule(given([2.0**-epoch], [late], [1.0]), network.context(epoch=epoch))
        pair(given([2.0**-epoch], [1.0]), network.context(epoch=epoch))
        if epoch < 5:
            torch.testing.assert_close(rule.weights[[0, 2]], pair.weights)
            assert rule.weights[1] == 1
    rates = torch.tensor([0.5, 0.8, 1.0]).double()
    torch.testing.assert_close(rule.weights, 3 * (rates / 2).softmax(0))


def test_dwa_does_not_count_a_step_that_is_not_finite():
    """Such as loss scaling skips."""
    network, whole, skipping = Network(), bound(DynamicWeightAverage()), bound(DynamicWeightAverage())
    for epoch in range(3):
        for rule in (whole, skipping):
            rule(given([1.0], [2.0 - epoch / 2], [3.0]), network.context(epoch=epoch))
        skipping(given([float("nan")], [2.0], [float("inf")]), network.context(epoch=epoch))
    assert torch.equal(whole.weights, skipping.weights) and whole.weights.tolist() != [1, 1, 1]


@pytest.mark.parametrize("regulariser", ["kendall", "liebel"])
def test_uncertainties_of_a_task_without_a_loss_stay(regulariser):
    rule = bound(UncertaintyWeighting(regulariser))
    optimizer = SGD(rule.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2000):
        optimizer.zero_grad()
        rule(given([1.0], [0.0], [4.0]), None).backward()
        optimizer.step()
    assert rule.log_variances[1] == 0
    if regulariser == "kendall":  # s = ln L
        assert rule.log_variances[[0, 2]].tolist() == pytest.approx([0, math.log(4)], abs=1e-6)


@pytest.mark.parametrize("make", [CombinationNetwork, AuxiNash])
def test_a_judge_that_is_not_finite_spoils_no_learned_rule(make):
    network = Network()
    rule = bound(make(interval=1))
    context = network.context()
    context = replace(context, judged=lambda: context.another().primary.mean() * float("inf"))
    before = copy.deepcopy(rule.state_dict())
    with pytest.raises(DivergedError, match="must be finite"):
        step(network, rule, network.data(0), context)
    assert all(torch.equal(p, before[name]) for name, p in rule.named_parameters())


@pytest.mark.parametrize("make", [CombinationNetwork, partial(CombinationNetwork, [3]), AuxiNash])
def test_what_is_learned_is_learned_in_full_precision(make):
    """Half of it would bend the gradient by some percent, and round a weight of 1.0035 to 1."""
    found = []
    for mixed in (False, True):
        torch.manual_seed(0)
        network = Network(dtype=torch.float32)
        rule = make(optimizer=partial(SGD, lr=1.0), clip=None)
        rule.bind(names(3))
        losses, context = network.losses(network.data(0)), network.context()
        rule(losses, context)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            if isinstance(rule, AuxiNash):
                rule.learn_preferences(context)
                found.append([rule.preference])
            else:
                rule.learn_network(context)
                found.append(
                    [*rule.parameters(), rule.combined(losses, dict(rule.network.named_parameters()), context)]
                )
    for one, other in zip(*found, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_gradnorm_takes_a_loss_that_nothing_trains():
    network, rule = Network(), bound(GradNorm())
    losses = network.losses(network.data(0))
    losses = losses._replace(auxiliary=(losses.auxiliary[0], losses.auxiliary[1].detach()))
    rule(losses, network.context()).backward()
    assert torch.isfinite(rule.weights).all() and network.heads[1].weight.grad is not None


def test_random_weights_are_positive_sum_to_the_number_of_tasks_and_depend_on_seed_and_step_alone():
    draws = {}
    for seed in (0, 1):
        rule = bound(RandomWeights(seed))
        draws[seed] = []
        for _ in range(2000):
            torch.rand(3)
            losses = given([1.0], [1.0], [1.0])
            rule(losses, None).backward()
            draws[seed].append([losses.primary.grad.item(), *(a.grad.item() for a in losses.auxiliary)])
    weights = torch.tensor(draws[0])
    assert (weights > 0).all() and weights.sum(1).tolist() == pytest.approx([3] * 2000, rel=1e-5)
    assert weights.mean(0).tolist() == pytest.approx([1, 1, 1], abs=0.06)
    # Under log-ratios of softmax(z), z is back: differences of normal draws, of variance 2.
    assert (weights[:, 0] / weights[:, 1]).log().var().item() == pytest.approx(2, rel=0.1)
    assert draws[0] != draws[1]
    resumed = bound(RandomWeights(0))
    resumed.load_state_dict({"steps": torch.tensor(1999)})
    losses = given([1.0], [1.0], [1.0])
    resumed(losses, None).backward()
    assert losses.primary.grad.item() == draws[0][-1][0]


def gradnorm_weights(network, batches, alpha, lr):
    """The paper's algorithm with the graph of its L_grad, step after step."""
    weights = torch.ones(3, dtype=torch.float64, requires_grad=True)
    initial, seen = None, []
    for data in batches:
        seen.append(weights.tolist())
        losses = network.losses(data)
        means = torch.stack([row.mean() for row in (losses.primary, *losses.auxiliary)])
        initial = means.detach() if initial is None else initial
        norms = torch.stack([
            torch.autograd.grad(w * mean, network.trunk[0].weight, create_graph=True)[0].norm()
            for w, mean in zip(weights, means, strict=True)
        ])  # fmt: skip
        rates = means.detach() / initial
        goal = norms.mean().detach() * (rates / rates.mean()) ** alpha
        (slope,) = torch.autograd.grad((norms - goal).abs().sum(), weights)
        moved = (weights - lr * slope).detach()
        weights = (3 * moved / moved.sum()).requires_grad_()
    return seen


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradnorms_weights_follow_the_papers_loss(alpha):
    network = Network()
    batches = [network.data(seed) for seed in range(6)]
    rule = bound(GradNorm(alpha, partial(SGD, lr=0.05)))
    seen = []
    for data in batches:
        seen.append(rule.weights.tolist())
        shared, _own, _ = step(network, rule, data)
        weights = torch.tensor(seen[-1], dtype=torch.float64)
        torch.testing.assert_close(shared, weights @ network.rows(data), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(seen, gradnorm_weights(network, batches, alpha, 0.05), rtol=1e-9)
    assert max(seen[-1]) > 1.05


def test_gradnorm_leaves_a_task_out_until_it_has_a_loss():
    """Without a label in the first batches; the others go on as if it were not there, up to the sum of the weights."""
    network = Network()
    three, two = bound(GradNorm(1.5, partial(SGD, lr=0.05))), bound(GradNorm(1.5, partial(SGD, lr=0.05)), 2)

    def without_last(losses):
        return TaskLosses(losses.primary, losses.auxiliary[:1], losses.weights[:1])

    for seed in range(3):
        data = network.data(seed)
        step(network, three, data, scales=(1.0, 1.0, 0.0))
        if seed == 0:
            two(without_last(network.losses(data)), network.context()).backward()
            torch.testing.assert_close(three.weights[1] / three.weights[0], two.weights[1] / two.weights[0])
    assert not three.initial[2] and three.initial[:2].all() and three.weights.min() > 0.5
    data = network.data(9)
    step(network, three, data)
    assert float(three.initial[2]) == pytest.approx(float(network.losses(data).auxiliary[1].mean()))
    for seed in range(50):
        step(network, three, network.data(seed))
    assert torch.isfinite(three.weights).all() and three.weights.min() > 0.01


def test_gradnorm_goes_on_from_a_checkpoint():
    network = Network()
    whole, resumed = bound(GradNorm()), bound(GradNorm())
    for seed in range(4):
        step(network, whole, network.data(seed))
    resumed.load_state_dict(whole.state_dict())
    for rule in (whole, resumed):
        step(network, rule, network.data(9))
    assert torch.equal(whole.weights, resumed.weights)  # Adam's moments, too


def cosines(rows):
    rows = rows.numpy()
    return [rows[0] @ row / np.sqrt(rows[0] @ rows[0] * (row @ row)) for row in rows[1:]]


@pytest.mark.parametrize("weighted", [False, True])
def test_only_auxiliary_gradients_that_agree_reach_the_shared_parameters(weighted):
    signs = set()
    for seed in range(8):
        network = Network(seed=seed)
        data = network.data(seed)
        rows = network.rows(data)
        shared, own, _ = step(network, bound(GradientCosine(weighted)), data)
        expected = rows[0].clone()
        for row, cosine in zip(rows[1:], cosines(rows), strict=True):
            signs.add(cosine > 0)
            if cosine > 0:
                expected += (cosine if weighted else 1) * row
        torch.testing.assert_close(shared, expected)
        for head, plain in zip(own, step(network, bound(RandomSum()), data)[1], strict=True):
            torch.testing.assert_close(head, plain)
    assert signs == {True, False}


class RandomSum(GradNorm):
    """The plain sum, by way of another rule's first step."""

    def __init__(self):
        super().__init__(optimizer=partial(SGD, lr=0.0))


def test_ol_aux_adds_up_inner_products_every_few_steps():
    network, rule = Network(), bound(OnlineAuxiliary(beta=0.3, horizon=3))
    weights, agreement, seen = np.ones(2), np.zeros(2), []
    for number in range(8):
        data = network.data(number)
        rows = network.rows(data)
        shared, own, _ = step(network, rule, data)
        expected = rows[0] + torch.from_numpy(weights) @ rows[1:]
        torch.testing.assert_close(shared, expected)
        torch.testing.assert_close(own[1], weights[0] * step(network, bound(RandomSum()), data)[1][1])
        agreement += (rows[1:] @ rows[0]).numpy()
        if number % 3 == 2:
            weights, agreement = np.maximum(0, weights + 0.3 * agreement), np.zeros(2)
        seen.append(weights.tolist())
    assert seen[2] != seen[1] and seen[5] != seen[4]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("tasks", [2, 3, 5])
def test_least_squares_weights_are_a_general_solvers(seed, tasks):
    rows = torch.randn(tasks, 12, generator=torch.Generator().manual_seed(seed)).double()
    rows *= torch.logspace(-2, 3, tasks).double()[:, None]
    weights = least_squares_weights(rows @ rows.T).numpy()
    units = rows / rows.norm(dim=1, keepdim=True)

    def distance(x):
        rest = units[0].numpy() - x @ units[1:].numpy()
        return rest @ rest, -2 * units[1:].numpy() @ rest

    found = minimize(distance, np.ones(tasks - 1), jac=True, bounds=[(0, None)] * (tasks - 1), options={"ftol": 1e-15})
    x = weights[1:] * (rows[1:].norm(dim=1) / rows[0].norm()).numpy()
    assert weights[0] == 1
    assert distance(x)[0] <= found.fun + 1e-9
    np.testing.assert_allclose(x, found.x, atol=1e-4)


def test_arml_solves_for_the_mean_of_the_inner_products():
    network, rule = Network(), bound(ARML(memory=0.6))
    kept = None
    for number in range(5):
        data = network.data(number)
        rows = network.rows(data)
        gramian = rows @ rows.T
        keep = min(0.6, 1 - 1 / (number + 1))
        kept = gramian if kept is None else keep * kept + (1 - keep) * gramian
        shared, _own, _ = step(network, rule, data)
        weights = best_on_a_grid(kept)
        torch.testing.assert_close(shared, torch.tensor([1, *weights]).double() @ rows, rtol=1e-3, atol=1e-4)


def best_on_a_grid(gramian):
    """Non-negative weights of two tasks, by trying out which of them are 0."""
    best = (float(gramian[0, 0]), [0.0, 0.0])
    for active in ([1], [2], [1, 2]):
        inner = gramian[active][:, active]
        x = torch.linalg.solve(inner, gramian[0, active])
        if (x >= 0).all():
            value = float(gramian[0, 0] - 2 * x @ gramian[0, active] + x @ inner @ x)
            weights = [0.0, 0.0]
            for task, share in zip(active, x.tolist(), strict=True):
                weights[task - 1] = share
            best = min(best, (value, weights))
    return best[1]


def test_arml_of_a_task_without_a_gradient():
    gramian = torch.tensor([[1, 0, 0.5], [0, 0, 0], [0.5, 0, 1]], dtype=torch.float64)
    assert least_squares_weights(gramian).tolist() == pytest.approx([1, 0, 0.5])
    assert least_squares_weights(torch.zeros(2, 2)).tolist() == [1, 0]


def by_samples(network, data, direction):
    """⟨∇ℓ_im, direction⟩, one backward pass per sample and task."""
    losses = network.losses(data)
    products = []
    for row in (losses.primary, *losses.auxiliary):
        for loss in row:
            slopes = torch.autograd.grad(loss, [*network.shared, *network.own], retain_graph=True, allow_unused=True)
            products.append(sum(float((s * v).sum()) for s, v in zip(slopes, direction, strict=True) if s is not None))
    return np.array(products).reshape(len(network.heads), -1)


def derivatives_of(network, data):
    def derivatives(direction):
        return list(torch.from_numpy(by_samples(network, data, direction)))

    return derivatives


def test_slgrads_weights_are_the_positive_parts_of_the_samples_inner_products():
    network = Network()
    data, judge = network.data(0), network.data(2)
    parameters = [*network.shared, *network.own]
    direction = torch.autograd.grad(network.losses(judge).primary.mean(), parameters, materialize_grads=True)
    products = np.maximum(0, by_samples(network, data, direction))
    assert 0 < (products > 0).sum() < products.size
    weights = torch.from_numpy(products / products.sum())
    losses = network.losses(data)
    expected = (weights * torch.stack([losses.primary, *losses.auxiliary])).sum()
    expected.backward()
    shared = torch.cat([p.grad.flatten() for p in network.shared])
    got, _, loss = step(network, bound(SLGrad()), data, network.context(derivatives=derivatives_of(network, data)))
    torch.testing.assert_close(got, shared)
    torch.testing.assert_close(loss, expected)


def test_slgrad_takes_the_primary_tasks_step_where_no_sample_helps():
    network, data = Network(), Network().data(0)
    rows = [-torch.ones(6).double()] * 3
    got, _, loss = step(network, bound(SLGrad()), data, network.context(derivatives=lambda direction: rows))
    torch.testing.assert_close(got, network.rows(data)[0])
    torch.testing.assert_close(loss, network.losses(data).primary.mean())


def explicit(network, phi, combined, further, judge, terms, eta):
    """−∇L_V · Σ_j (I − ηH)^j · ∂_φ∇L_T with H row by row over the shared parameters."""
    theta = network.shared

    def flat(loss, at, **options):
        slopes = torch.autograd.grad(loss, at, materialize_grads=True, **options)
        return torch.cat([slope.flatten() for slope in slopes])

    slope = flat(combined(network.losses(further)), theta, create_graph=True)
    hessian = torch.stack([flat(part, theta, retain_graph=True) for part in slope])
    vector = flat(network.losses(judge).primary.mean(), theta)
    series = sum(torch.linalg.matrix_power(torch.eye(len(slope)).double() - eta * hessian, j) for j in range(terms + 1))
    return -flat(slope @ (vector @ series).detach(), phi)


@pytest.mark.parametrize("hidden", [(), (3,), (3, 2)])
@pytest.mark.parametrize("per_sample", [True, False])
def test_the_combination_network_moves_along_the_written_out_hypergradient(hidden, per_sample):
    network = Network()
    rule = bound(
        CombinationNetwork(hidden, per_sample, 1, optimizer=partial(SGD, lr=0.1), clip=None, terms=2, eta=0.05)
    )
    if not hidden:
        rule.network[0].weight.data = torch.tensor([[0.5, 1.5, 0.7]]).double()
    before = [p.clone().requires_grad_() for p in rule.network.parameters()]

    def combined(losses):
        samples = torch.stack([losses.primary, *losses.auxiliary], 1)
        x = samples if per_sample else samples.mean(0, keepdim=True)
        if not hidden:
            return (x @ before[0].T).mean()
        for weight, bias in zip(before[:-1:2], before[1:-1:2], strict=True):
            x = nn.functional.softplus(x @ weight.T + bias)
        return (x @ before[-1].T).mean() + losses.primary.mean()

    data = network.data(0)
    expected = explicit(network, before, combined, network.data(1), network.data(2), 2, 0.05)
    step(network, rule, data)
    start = torch.cat([p.flatten() for p in before])
    goal = (start - 0.1 * expected).detach()
    moved = torch.cat([p.flatten() for p in rule.network.parameters()])
    clamped = torch.cat([torch.full((p.numel(),), p.ndim > 1) for p in before])
    torch.testing.assert_close(moved, goal.where(~clamped, goal.clamp_min(0)), rtol=1e-8, atol=1e-12)
    assert not torch.equal(moved, start)


def test_the_linear_combination_starts_as_the_plain_sum():
    network, data = Network(), Network().data(0)
    shared, _, _loss = step(network, bound(CombinationNetwork()), data)
    torch.testing.assert_close(shared, network.rows(data).sum(0))
    assert not any(p.requires_grad for p in bound(CombinationNetwork()).parameters())


def test_the_combination_network_steps_at_its_interval_and_stays_monotone():
    network = Network()
    rule = bound(CombinationNetwork((3,), interval=3, optimizer=partial(SGD, lr=100.0)))
    moves = []
    for number in range(7):
        before = [p.clone() for p in rule.parameters()]
        step(network, rule, network.data(number))
        moves.append(any(not torch.equal(a, b) for a, b in zip(before, rule.parameters(), strict=True)))
        assert all(p.min() >= 0 for name, p in rule.network.named_parameters() if name.endswith("weight"))
    assert moves == [False, False, True, False, False, True, False]


def test_losses_of_unequal_number_are_combined_by_their_means_alone():
    short = TaskLosses(torch.ones(2).double(), (torch.ones(4).double(),), (torch.ones(4).double(),))
    with pytest.raises(InputError, match=r"needs a loss of each task for every image.*Found 2, 4 losses"):
        bound(CombinationNetwork(), 2)(short, Network().context())
    assert bound(CombinationNetwork(per_sample=False), 2)(short, Network().context()).item() == 2


ARGUMENTS = [
    (lambda: UncertaintyWeighting("other"), "`regulariser`"),
    (lambda: DynamicWeightAverage(0.0), "`temperature`"),
    (lambda: RandomWeights(-1), "`seed`"),
    (lambda: GradNorm(-1.0), "`alpha`"),
    (lambda: GradNorm(math.nan), "`alpha`"),
    (lambda: OnlineAuxiliary(beta=0.0), "`beta`"),
    (lambda: OnlineAuxiliary(horizon=0), "`horizon`"),
    (lambda: ARML(1.0), "`memory`"),
    (lambda: ARML(-0.1), "`memory`"),
    (lambda: CombinationNetwork(interval=0), "`interval`"),
    (lambda: CombinationNetwork([0]), "`hidden`"),
    (lambda: CombinationNetwork(3), "`hidden` must be a list of sizes"),
    (lambda: GradNorm(math.inf), "`alpha`"),
    (lambda: OnlineAuxiliary(beta=math.inf), "`beta`"),
    (lambda: CombinationNetwork(terms=-1), "`terms`"),
    (lambda: CombinationNetwork(eta=0.0), "`eta`"),
    (lambda: CombinationNetwork(clip=0.0), "`clip`"),
    (lambda: bound(GradNorm(optimizer=partial(SGD, lr=-1.0))), "`optimizer` of GradNorm does not take"),
]


@pytest.mark.parametrize(("make", "expected"), ARGUMENTS)
def test_values_out_of_range(make, expected):
    with pytest.raises(InputError, match=expected):
        make()
