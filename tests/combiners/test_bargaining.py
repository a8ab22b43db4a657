import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from auxlight import InputError
from auxlight.combiners.bargaining import CANCELS, RIDGE, bargain


def problem(number):
    """Gradients (P, M) of random directions and lengths over six decades, some of low rank, some zero, some doubled."""
    rng = np.random.default_rng(number)
    tasks = int(rng.integers(2, 21))
    gradients = rng.standard_normal((int(rng.integers(1, 60)), tasks)) * 10 ** rng.uniform(-3, 3, tasks)
    if number % 4 == 1:
        gradients[:, rng.integers(tasks)] = 0
    if number % 4 == 2:
        gradients[:, 0] = rng.uniform(0.1, 10) * gradients[:, -1]
    if number % 4 == 3:
        gradients[:, 0] = -rng.uniform(0.1, 10) * gradients[:, -1]
    preference = rng.uniform(1e-4, 1, tasks)
    return torch.from_numpy(gradients), torch.from_numpy(tasks * preference / preference.sum())


@pytest.mark.parametrize("hundred", range(10))
def test_the_residual_is_below_1e_10_or_the_answer_is_the_stated_one(hundred):
    for number in range(100 * hundred, 100 * hundred + 100):
        gradients, preference = problem(number)
        gramian = gradients.T @ gradients
        weights = bargain(gramian, preference).weights
        assert torch.isfinite(weights).all()
        active = gradients.norm(dim=0) > 0
        assert torch.equal(weights > 0, active)
        # In units of each gradient's length, as no length makes a difference.
        units = gradients / gradients.norm(dim=0).where(active, 1.0)
        x = weights * gradients.norm(dim=0)

        def residual(x, cosines, active=active, preference=preference):
            goal = (preference / x)[active]
            return float(((cosines @ x)[active] - goal).norm() / goal.norm())

        cosines = units.T @ units
        if residual(x, cosines) > 1e-10:  # no mixture of the gradients may then be far from 0
            assert residual(x, cosines + RIDGE * torch.eye(len(x), dtype=torch.float64)) < 1e-10
            c = cosines.numpy()
            mixture = minimize(
                lambda s, c=c: s @ c @ s,
                np.full(len(x), 1 / len(x)),
                jac=lambda s, c=c: 2 * c @ s,
                bounds=[(0, 1)] * len(x),
                constraints={"type": "eq", "fun": lambda s: s.sum() - 1, "jac": lambda s: np.ones_like(s)},
                options={"maxiter": 1000, "ftol": 1e-14},
            )
            nearest = mixture.fun if active.all() else 0.0
            assert nearest < float(preference.sum()) / (CANCELS**2 * float(preference.sum())) * len(x)


@pytest.mark.parametrize("tasks", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_a_general_convex_solver_finds_the_same(tasks, seed):
    rng = np.random.default_rng(seed)
    gradients, p = rng.standard_normal((30, tasks)), rng.uniform(0.2, 2, tasks)
    gramian = gradients.T @ gradients
    found = minimize(
        lambda log: 0.5 * np.exp(log) @ gramian @ np.exp(log) - p @ log,  # over log α, so that α > 0
        np.zeros(tasks),
        jac=lambda log: np.exp(log) * (gramian @ np.exp(log)) - p,
        method="BFGS",
        options={"gtol": 1e-11},
    )
    ours = bargain(torch.from_numpy(gramian), torch.from_numpy(p)).weights
    np.testing.assert_allclose(ours.numpy(), np.exp(found.x), rtol=1e-6)


def test_orthogonal_gradients_weigh_the_root_of_their_preference_over_their_length():
    lengths, p = torch.tensor([1e-3, 2.0, 3e4]).double(), torch.tensor([0.3, 1.2, 1.5]).double()
    torch.testing.assert_close(bargain(torch.diag(lengths**2), p).weights, p.sqrt() / lengths, rtol=1e-13, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_the_combined_gradients_square_is_the_sum_of_the_preferences(seed):
    gradients = torch.randn(40, 5, generator=torch.Generator().manual_seed(seed)).double()
    p = torch.rand(5, generator=torch.Generator().manual_seed(seed)).double() + 0.1
    weights = bargain(gradients.T @ gradients, p).weights
    assert float((gradients @ weights).square().sum()) == pytest.approx(float(p.sum()), rel=1e-12)


def test_two_tasks_by_hand():
    """Unit gradients at cosine c, p = (1, 1): α₁ = α₂ = 1 / √(1 + c)."""
    for c in (-0.9, 0.0, 0.5, 0.99):
        weights = bargain(torch.tensor([[1, c], [c, 1]], dtype=torch.float64), torch.ones(2)).weights
        assert weights.tolist() == pytest.approx([(1 + c) ** -0.5] * 2, rel=1e-12)


def test_lengths_make_no_difference():
    gradients = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    scales, p = torch.tensor([1e-5, 1.0, 1e5, 3.0], dtype=torch.float64), torch.tensor([0.5, 1.0, 1.5, 1.0]).double()
    plain = bargain(gradients.T @ gradients, p).weights
    scaled = gradients * scales
    torch.testing.assert_close(bargain(scaled.T @ scaled, p).weights * scales, plain, rtol=1e-9, atol=0)


def test_tasks_in_another_order_have_their_weights_in_that_order():
    gradients, preference = problem(0)
    order = torch.randperm(len(preference))
    plain = bargain(gradients.T @ gradients, preference).weights
    mixed = gradients[:, order]
    torch.testing.assert_close(bargain(mixed.T @ mixed, preference[order]).weights, plain[order], rtol=1e-9, atol=0)


def test_a_task_without_a_gradient_weighs_nothing_and_the_others_bargain_without_it():
    gradients = torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).double()
    gradients[:, 2] = 0
    p, others = torch.tensor([0.5, 1.0, 1.5, 1.0]).double(), [0, 1, 3]
    weights = bargain(gradients.T @ gradients, p).weights
    rest = gradients[:, others]
    assert weights[2] == 0
    torch.testing.assert_close(weights[others], bargain(rest.T @ rest, p[others]).weights)
    assert bargain(torch.zeros(3, 3), torch.ones(3)).weights.tolist() == [0, 0, 0]


def test_opposed_gradients_get_bounded_weights_and_a_small_update():
    gradients = torch.tensor([[1.0, -1.0], [0.0, 0.0]]).double()
    solved = bargain(gradients.T @ gradients, torch.tensor([1.5, 0.5]).double())
    assert solved.weights.max() <= (2 / RIDGE) ** 0.5
    assert (gradients @ solved.weights).norm() < 0.1
    assert solved.residual < 1e-10


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5, 7])
def test_the_jacobian_by_finite_differences(number):
    gradients, p = problem(number)
    gradients = gradients / gradients.norm(dim=0).clamp_min(1e-300)
    solved = bargain(gradients.T @ gradients, p)
    for m in range(len(p)):
        move = torch.zeros_like(p)
        move[m] = 1e-6 * p[m]
        high, low = (bargain(gradients.T @ gradients, p + sign * move).weights for sign in (1, -1))
        slope = (high - low) / (2e-6 * p[m])
        torch.testing.assert_close(solved.jacobian()[:, m], slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max()))


@pytest.mark.parametrize("number", range(20))
def test_the_jacobian_times_the_preferences_is_half_the_weights(number):
    gradients, p = problem(number)
    solved = bargain(gradients.T @ gradients, p)
    half = solved.weights / 2
    torch.testing.assert_close(solved.jacobian() @ p, half, rtol=1e-9, atol=1e-9 * float(half.max()))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_gradients_that_are_no_numbers_are_refused(value):
    with pytest.raises(InputError, match=r"gradients must be finite"):
        bargain(torch.tensor([[1.0, value], [value, 1.0]]), torch.ones(2))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_preferences_that_are_not_positive_are_refused(value):
    with pytest.raises(InputError, match=r"`preference` must be positive for each task"):
        bargain(torch.eye(2), torch.tensor([1.0, value]))
