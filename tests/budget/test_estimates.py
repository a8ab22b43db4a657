import numpy as np
import pytest
from scipy.optimize import curve_fit

from auxlight import InputError
from auxlight.budget import LabelType, allocate, fit_curve, information, relatedness


@pytest.mark.parametrize("beta", [0.3, 0.5, 0.7, 0.85, 0.93])
def test_the_rate_of_a_noisy_curve_is_found(beta):
    counts = np.repeat(np.arange(1, 13) * 50, 5)
    for seed in range(20):
        noise = np.random.default_rng(seed).normal(0, 0.002, size=len(counts))
        curve = fit_curve(counts, 0.8 - 0.5 * beta ** (counts / 50) + noise)
        assert curve.beta == pytest.approx(beta, abs=0.02)
        assert curve.block == 50 and curve.error < 0.004


def test_it_is_the_least_squares_fit_of_scipy():
    rng = np.random.default_rng(0)
    counts = np.arange(1, 16) * 10.0
    for _ in range(20):
        a, b, beta = rng.uniform(0.5, 1), rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.9)
        metrics = a - b * beta ** (counts / 10) + rng.normal(0, 0.01, size=15)
        expected, _ = curve_fit(lambda n, a, b, beta: a - b * beta ** (n / 10), counts, metrics, p0=(a, b, beta))
        found = fit_curve(counts, metrics)
        assert (found.ceiling, found.scale, found.beta) == pytest.approx(tuple(expected), abs=1e-3)
        np.testing.assert_allclose(found(counts), expected[0] - expected[1] * expected[2] ** (counts / 10), atol=1e-3)


@pytest.mark.parametrize("metrics", [[0.5, 0.4, 0.3, 0.2], [0.9] * 4])
def test_a_curve_that_does_not_rise_has_no_gain_and_buys_nothing(metrics):
    curve = fit_curve([10, 20, 30, 40], metrics)
    assert curve.scale == 0 and not curve.gain(np.arange(5)).any()
    rising = fit_curve([10, 20, 30, 40], [0.5, 0.6, 0.65, 0.68])
    plan = allocate([LabelType("flat"), LabelType("rising")], 60, [1, 1], [curve.gain, rising.gain])
    assert plan.counts == {"flat": 0, "rising": 60}


def test_of_noise_alone_a_curve_seldom_rises():
    counts = np.tile([50, 100, 150, 200, 300, 400], 3)
    rises = [fit_curve(counts, 0.5 + np.random.default_rng(i).normal(0, 0.03, size=18)).scale > 0 for i in range(200)]
    assert np.mean(rises) < 0.08  # of those that rise by chance at 5 %, half fall


def test_each_split_has_a_level_of_its_own():
    """Beside scipy's fit with a level for each; what differs between splits then hides no rise, and feigns none."""
    rng = np.random.default_rng(0)
    counts, splits = np.arange(1, 16) * 10.0, np.repeat([0, 1, 2], [4, 5, 6])
    levels = np.array([0.7, 0.9, 0.8])
    metrics = levels[splits] - 0.3 * 0.7 ** (counts / 10) + rng.normal(0, 0.01, size=15)

    def curves(n, a, b, c, scale, beta):
        return np.array([a, b, c])[splits] - scale * beta ** (n / 10)

    expected, _ = curve_fit(curves, counts, metrics, p0=(*levels, 0.3, 0.7))
    found = fit_curve(counts, metrics, splits=splits.tolist())
    assert (found.scale, found.beta) == pytest.approx(tuple(expected[3:]), abs=1e-3)
    assert found.ceiling == pytest.approx(expected[:3][splits].mean(), abs=1e-3)
    assert found.error == pytest.approx(np.sqrt(np.mean((metrics - curves(counts, *expected)) ** 2)), rel=1e-3)

    counts, splits = np.tile([50, 100, 150, 200, 300, 400], 3), np.repeat([0, 1, 2], 6)
    rises = {0.0: [], 0.1: []}
    for i in range(80):
        rng = np.random.default_rng(i)
        noise = rng.normal(0, 0.05, size=3)[splits] + rng.normal(0, 0.02, size=18)
        for scale, found in rises.items():
            metrics = 0.9 - scale * 0.6 ** (counts / 50) + noise
            found.append([fit_curve(counts, metrics, splits=own).scale > 0 for own in (None, splits.tolist())])
    assert np.mean(rises[0.0], 0)[1] < 0.1
    assert np.mean(rises[0.1], 0)[1] > 2 * np.mean(rises[0.1], 0)[0] > 0.5


def test_the_interval_of_the_rate_holds_it():
    counts = np.tile([50, 100, 150, 200, 300, 400], 3)
    held, widths = 0, {}
    for noise in (0.005, 0.02):
        for i in range(40):
            metrics = 0.9 - 0.5 * 0.6 ** (counts / 50) + np.random.default_rng(i).normal(0, noise, size=18)
            low, high = fit_curve(counts, metrics).beta_interval
            held += low <= 0.6 <= high
            widths.setdefault(noise, []).append(high - low)
    assert held / 80 > 0.85  # a bootstrap of 18 residuals is a little short
    assert np.mean(widths[0.02]) > 2 * np.mean(widths[0.005])


def seeds(rng, count, noise=0.01):
    """Task 0 helps task 1 by 10 %, task 2 helps nobody; task 1 harms task 0."""
    truth = np.array([[0.0, 0.10, 0.0], [-0.08, 0.0, 0.0], [0.0, 0.0, 0.0]])
    single = 0.6 + rng.normal(0, noise, size=(count, 3))
    joint = single[:, None, :] * (1 + truth) + rng.normal(0, noise, size=(count, 3, 3))
    return single, joint


@pytest.mark.parametrize("count", [3, 5])
def test_a_planted_helpful_pair_is_found_and_useless_ones_are_not(count):
    rng = np.random.default_rng(0)
    found, useless = 0, 0
    for _ in range(200):
        related = relatedness(*seeds(rng, count))
        assert np.diag(related).tolist() == [1, 1, 1] and (related >= 0).all()
        assert related[0, 1] == 0 or related[0, 1] == pytest.approx(0.10, abs=0.06)
        found += related[0, 1] > 0
        useless += int((related[2, :2] > 0).sum() + (related[:2, 2] > 0).sum())
        assert related[1, 0] == 0
    assert found >= (180 if count == 3 else 198)
    assert useless / 800 < 0.07  # 5 % by the test


def test_without_significance_every_positive_mean_counts():
    single = np.full((3, 2), 0.5)
    joint = np.full((3, 2, 2), 0.5)
    joint[:, 0, 1] = [0.4, 0.5, 0.7]
    assert relatedness(single, joint)[0, 1] == 0
    assert relatedness(single, joint, level=0.5)[0, 1] == pytest.approx(0.2 / 3)


def test_a_task_that_fails_alone_is_helped_by_a_finite_share():
    assert relatedness(np.zeros((3, 2)), np.full((3, 2, 2), 0.02))[0, 1] == pytest.approx(2)


def test_information_is_weighed_by_the_priorities():
    types = [LabelType("a", priority=2), LabelType("b"), LabelType("c", priority=0)]
    related = np.array([[1, 0.5, 3], [0.1, 1, 3], [0, 0, 1]])
    assert information(types, related) == pytest.approx([2.5, 1.2, 0])


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: fit_curve([1, 2], [0.1, 0.2]), "three or more"),
        (lambda: fit_curve([1, 2, 3], [0.1, 0.2]), "2 metrics"),
        (lambda: fit_curve([1, 2, 3, 1, 2], [0.1, 0.2, 0.3, 0.1, 0.3], splits=[0, 0, 0, 1, 2]), "needs 6 metrics"),
        (lambda: fit_curve([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], splits=[0, 1]), "2 splits"),
        (lambda: fit_curve([1, 2, 3, 4], [0.1, float("nan"), 0.2, 0.3]), "nan at 2 labels"),
        (lambda: fit_curve([1, 2, 3, 4], [0.1, 0.2, 0.3, 0.4], block=0), "`block`"),
        (lambda: relatedness(np.ones((2, 2)), np.ones((2, 2, 2))), "three seeds"),
        (lambda: relatedness(np.ones((3, 2)), np.ones((3, 2))), "shape"),
        (lambda: relatedness(np.full((3, 2), np.nan), np.ones((3, 2, 2))), "finite"),
        (lambda: relatedness(-np.ones((3, 2)), np.ones((3, 2, 2))), "0 or above"),
        (lambda: information([LabelType("a")], np.ones((2, 2))), "`related`"),
    ],
)
def test_each_mistake_gets_one_line(make, part):
    with pytest.raises(InputError) as error:
        make()
    assert part in str(error.value) and "\n" not in str(error.value)
