from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam
from torchjd.aggregation import NashMTL

from auxlight import AuxiNash, InputError, StepContext, TaskLosses, WeightedSum
from auxlight.combiners.auxinash import preference_gradient
from auxlight.combiners.bargaining import bargain
from tests.combiners.problems import Network, names, step


def bound(tasks=3, **arguments):
    rule = AuxiNash(**arguments)
    rule.bind(names(tasks))
    return rule.double()


@pytest.mark.filterwarnings("ignore:You are solving a parameterized problem")
@pytest.mark.parametrize("seed", range(3))
def test_uniform_preferences_are_nash_mtl(seed):
    """TorchJD's solver is the authors' sequence of convex programmes, which stops at a residual of 1e-3."""
    network = Network(seed=seed)
    data = network.data(seed)
    theirs = NashMTL(n_tasks=3, max_norm=0.0)(network.rows(data))
    shared, _, _ = step(network, bound(learn=False, max_norm=None), data)
    assert float(nn.functional.cosine_similarity(shared, theirs, 0)) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("preference", [None, [0.2, 0.3, 0.5], [8, 1, 1]])
def test_the_update_is_the_bargains_and_heads_are_weighted_too(preference):
    network = Network()
    data = network.data(0)
    rows = network.rows(data)
    p = torch.ones(3) if preference is None else torch.tensor(preference).double()
    weights = bargain(rows @ rows.T, 3 * p / p.sum()).weights
    shared, own, _ = step(network, bound(preference=preference, learn=False, max_norm=None), data)
    torch.testing.assert_close(shared, weights @ rows)
    for weight, head, plain in zip(weights, own, step(network, WeightedSum(), data)[1], strict=True):
        torch.testing.assert_close(head, weight * plain)


def test_the_shared_gradient_is_clipped_and_heads_are_not():
    network = Network()
    data = network.data(0)
    shared, own, _ = step(network, bound(learn=False, max_norm=0.1), data)
    free, free_own, _ = step(network, bound(learn=False, max_norm=None), data)
    torch.testing.assert_close(shared, 0.1 * free / free.norm())
    torch.testing.assert_close(own[1], free_own[1])
    assert step(network, bound(learn=False, max_norm=100.0), data)[0].tolist() == free.tolist()


@pytest.mark.parametrize("scales", [(1.0, 1e4, 1e-4), (1e25, 1e20, 1e18)])
def test_the_scale_of_a_loss_makes_no_difference(scales):
    network = Network()
    data = network.data(0)
    plain = step(network, bound(learn=False), data)
    scaled = step(network, bound(learn=False), data, scales=scales)
    torch.testing.assert_close(scaled[0], plain[0], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(scaled[1][2], plain[1][2], rtol=1e-8, atol=1e-12)


def test_tasks_in_another_order_make_the_same_update():
    network = Network()
    x, y = network.data(0)
    plain = step(network, bound(learn=False, preference=[1, 2, 3]), (x, y))[0]
    network.heads = nn.ModuleList([network.heads[m] for m in (0, 2, 1)])
    other = step(network, bound(learn=False, preference=[1, 3, 2]), (x, y[:, [0, 2, 1]]))[0]
    torch.testing.assert_close(other, plain)


class Quadratic:
    """L_m(θ) = ½ (θ − c_m)ᵀ A_m (θ − c_m), whose weighted sum has its minimum in closed form."""

    def __init__(self, tasks=3, size=4, seed=0):
        generator = torch.Generator().manual_seed(seed)
        roots = torch.randn(tasks, size, size, generator=generator, dtype=torch.float64)
        self.matrices = roots @ roots.transpose(1, 2) + 0.5 * torch.eye(size, dtype=torch.float64)
        self.centres = torch.randn(tasks, size, generator=generator, dtype=torch.float64)
        self.judge = torch.randn(size, generator=generator, dtype=torch.float64)
        self.theta = nn.Parameter(torch.zeros(size, dtype=torch.float64))

    def losses(self, theta):
        away = theta - self.centres
        values = 0.5 * torch.einsum("mi,mij,mj->m", away, self.matrices, away)
        return TaskLosses(values[:1], tuple(v[None] for v in values[1:]), (torch.ones(1),) * (len(values) - 1))

    def judged(self, theta):
        return (theta - self.judge).square().sum() + theta.prod()

    def minimum(self, alpha):
        hessian = torch.einsum("m,mij->ij", alpha, self.matrices)
        return torch.linalg.solve(hessian, torch.einsum("m,mij,mj->i", alpha, self.matrices, self.centres))


@pytest.mark.parametrize("seed", range(4))
def test_the_preferences_gradient_by_finite_differences_of_the_whole_pipeline(seed):
    """p → α, by the bargain over fixed gradients → θ, the minimum of the weighted losses → the judge's loss."""
    problem = Quadratic(seed=seed)
    gradients = torch.randn(6, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gramian, p = gradients.T @ gradients, torch.tensor([0.6, 1.0, 1.4], dtype=torch.float64)

    def pipeline(preference):
        return float(problem.judged(problem.minimum(bargain(gramian, preference).weights)))

    slopes = []
    for m in range(3):
        move = torch.zeros(3, dtype=torch.float64)
        move[m] = 1e-5
        slopes.append((pipeline(p + move) - pipeline(p - move)) / 2e-5)
    solved = bargain(gramian, p)
    problem.theta.data = problem.minimum(solved.weights)
    context = StepContext(
        [problem.theta],
        [],
        another=lambda: problem.losses(problem.theta),
        judged=lambda: problem.judged(problem.theta),
    )
    largest = torch.linalg.eigvalsh(torch.einsum("m,mij->ij", solved.weights, problem.matrices)).max()
    got = preference_gradient(solved, context, terms=3000, eta=float(1 / largest))
    np.testing.assert_allclose(got.numpy(), slopes, rtol=1e-5, atol=1e-8)
    assert np.abs(slopes).max() > 1e-3


def test_the_preferences_step_at_their_interval_along_the_clipped_gradient():
    network = Network()
    rule = bound(interval=3, optimizer=partial(SGD, lr=0.1), clip=1.0, max_norm=None, eta=1e-3)
    for number in range(6):
        before = rule.preference.clone()
        data = network.data(number)
        step(network, rule, data)
        if number % 3 != 2:
            assert torch.equal(rule.preference, before)
            continue
        rows = network.rows(data)
        slope = preference_gradient(bargain(rows @ rows.T, before), network.context(), 3, 1e-3) / 1e-3
        slope = slope / max(1.0, float(slope.norm()))
        moved = (before - 0.1 * slope).clamp_min(1e-4)
        torch.testing.assert_close(rule.preference.data, 3 * moved / moved.sum(), rtol=1e-5, atol=1e-7)
        assert not torch.equal(rule.preference, before)


def test_preferences_stay_positive_and_sum_to_the_number_of_tasks():
    network = Network()
    rule = bound(interval=1, optimizer=partial(SGD, lr=50.0))
    for number in range(10):
        step(network, rule, network.data(number), network.context(further=number + 20, judge=number + 50))
        assert rule.preference.sum().item() == pytest.approx(3)
        assert rule.preference.min() > 0
    assert rule.preference.min() < 1e-2  # the bound was reached


def test_a_checkpoint_keeps_preferences_and_momentum():
    network = Network()
    whole, resumed = bound(interval=2), bound(interval=2)
    for number in range(5):
        step(network, whole, network.data(number))
    resumed.load_state_dict(whole.state_dict())
    for rule in (whole, resumed):
        step(network, rule, network.data(9))
    assert torch.equal(whole.preference, resumed.preference)
    assert not torch.equal(whole.preference, torch.ones(3).double())


def test_what_is_reported():
    network = Network()
    rule = bound(preference=[0.2, 0.3, 0.5], learn=False)
    data = network.data(0)
    step(network, rule, data)
    rows = network.rows(data)
    assert set(rule.report) == {
        *(f"{kind}_{name}" for kind in ("weight", "preference") for name in names(3)),
        "cosine_task1",
        "cosine_task2",
    }
    assert rule.report["preference_task2"].item() == pytest.approx(0.5)
    cosine = nn.functional.cosine_similarity(rows[0], rows[2], 0)
    assert rule.report["cosine_task2"].item() == pytest.approx(float(cosine))


def descend(tasks, seed, epochs=1000):
    """AuxiNash's illustration: regressions on a line with W* = (1, 1), the primary one noisy, one to another W."""
    torch.manual_seed(seed)
    right, wrong = torch.tensor([1.0, 1.0]), torch.tensor([-1.0, -4.0])
    x = torch.randn(1000, 2)
    goals = {"primary": x @ right + 5 * torch.randn(1000), "helpful": x @ right + 0.25 * torch.randn(1000)}
    goals["harmful"] = x @ wrong + 0.25 * torch.randn(1000)
    w = nn.Parameter(torch.zeros(2))
    optimizer, rule = Adam([w], lr=1e-2), AuxiNash(interval=5)
    rule.bind(tasks)

    def losses(rows):
        squares = [(x[rows] @ w - goals[task][rows]).square() for task in tasks]
        return TaskLosses(squares[0], tuple(squares[1:]), tuple(map(torch.ones_like, squares[1:])))

    def another():
        return losses(torch.randperm(1000)[:256])

    context = StepContext([w], [], another=another, judged=lambda: another().primary.mean())
    for _ in range(epochs):
        for rows in torch.randperm(1000).split(256)[:-1]:
            optimizer.zero_grad()
            rule(losses(rows), context).backward()
            optimizer.step()
    return float((w.detach() - right).norm()), (rule.preference / len(tasks)).tolist()


def test_in_the_papers_illustration_the_harmful_task_loses_its_say():
    distance, preference = descend(["primary", "helpful", "harmful"], seed=0)
    without, _ = descend(["primary", "harmful"], seed=0)
    assert preference[2] < 0.05
    assert distance < without / 3


ARGUMENTS = [
    ({"interval": 0}, "`interval`"),
    ({"preference": [1.0, 0.0, 1.0]}, "`preference` must be a positive number per task"),
    ({"preference": [1.0, -1.0, 1.0]}, "`preference`"),
    ({"preference": [1.0, float("inf"), 1.0]}, "`preference`"),
    ({"preference": [1.0, 2.0]}, r"`preference` must hold a number for each of the 3 tasks \(primary, task1, task2\)"),
    ({"least": 0.0}, "`least`"),
    ({"least": 1.0}, "`least`"),
    ({"preference": 0.5}, "`preference` must be a list, one number per task"),
    ({"tasks": 1}, "AuxiNash needs an auxiliary task to bargain with"),
    ({"max_norm": 0.0}, "`max_norm`"),
    ({"clip": -1.0}, "`clip`"),
    ({"eta": 0.0}, "`eta`"),
    ({"terms": -1}, "`terms`"),
]


@pytest.mark.parametrize(("arguments", "expected"), ARGUMENTS)
def test_values_out_of_range(arguments, expected):
    with pytest.raises(InputError, match=expected):
        bound(**arguments)


def test_a_context_that_cannot_judge():
    network = Network()
    rule = bound(interval=1)
    with pytest.raises(InputError, match=r"asks for the primary loss of other images. Found none"):
        step(network, rule, network.data(0), StepContext(network.shared, network.own))
