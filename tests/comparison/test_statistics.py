import itertools
import math

import numpy as np
import pytest
from scipy import stats

from auxlight import InputError
from auxlight.comparison import best_of, differences, holm, mean_interval, seeds_needed


def test_intervals_are_those_of_scipy():
    rng = np.random.default_rng(0)
    for size in (2, 3, 10):
        values = rng.normal(size=size)
        low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
        found = mean_interval(values)
        assert (found.mean, found.low, found.high) == pytest.approx((values.mean(), low, high))
        assert found.half == pytest.approx((high - low) / 2)
    assert math.isnan(mean_interval([1.0]).half)


def test_differences_are_paired_by_seed_and_tested_as_by_scipy():
    rng = np.random.default_rng(1)
    control = {seed: float(rng.normal()) for seed in range(6)}
    other = {seed: value + 0.3 + 0.1 * float(rng.normal()) for seed, value in control.items()}
    (found,) = differences({"control": control, "other": {**dict(reversed(other.items())), 99: 1e9}}, "control")
    expected = stats.ttest_rel(list(other.values()), list(control.values()))
    assert found.p == pytest.approx(expected.pvalue) and found.adjusted == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    assert found.is_distinguishable and (found.method, found.control) == ("other", "control")


def closed_testing(p_values):
    """Holm's procedure is the closed test that rejects a set by Bonferroni: the largest |S| min p over sets with i."""
    indices = range(len(p_values))
    sets = [s for size in range(1, len(p_values) + 1) for s in itertools.combinations(indices, size)]
    return [max(min(1, len(s) * min(p_values[j] for j in s)) for s in sets if i in s) for i in indices]


def test_holm_is_the_closed_test_of_bonferroni():
    rng = np.random.default_rng(2)
    for size in range(1, 7):
        for _ in range(20):
            p_values = rng.uniform(size=size) ** 3
            assert holm(p_values) == pytest.approx(closed_testing(p_values))
    assert holm([0.01, float("nan"), 0.04])[::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm([0.01, float("nan")])[1])


def test_what_has_not_run_yet_is_corrected_for():
    """So that what is told apart stays so when it has run, and found nothing."""
    rng = np.random.default_rng(5)
    p_values = list(rng.uniform(size=4) ** 3)
    assert holm(p_values, 9) == pytest.approx(holm([*p_values, *[1.0] * 5])[:4])
    assert holm(p_values, 2) == holm(p_values)
    scores = {"control": {0: 0.5, 1: 0.51, 2: 0.5}, "other": {0: 0.6, 1: 0.63, 2: 0.62}}
    (one,), (of_many,) = differences(scores, "control"), differences(scores, "control", 14)
    assert of_many.adjusted == pytest.approx(14 * one.p)


def test_methods_that_are_their_control_are_hardly_ever_told_apart_from_it():
    """In a study of ten of them at most one in twenty studies may claim anything."""
    rng = np.random.default_rng(3)
    claims = 0
    for _ in range(400):
        scores = {f"m{i}": dict(enumerate(rng.normal(size=5))) for i in range(11)}
        claims += any(found.is_distinguishable for found in differences(scores, "m0"))
    assert claims / 400 <= 0.05


def test_a_true_gain_is_found():
    rng = np.random.default_rng(4)
    found = 0
    for _ in range(100):
        control = rng.normal(size=8)
        scores = {"control": control, "same": control + 0.1 * rng.normal(size=8)}
        scores["better"] = control + 0.3 + 0.1 * rng.normal(size=8)
        results = differences({name: dict(enumerate(values)) for name, values in scores.items()}, "control")
        found += {result.method: result.is_distinguishable for result in results}["better"]
    assert found >= 99


def test_the_seeds_needed_are_those_that_find_a_gain_in_simulation():
    rng = np.random.default_rng(0)
    for effect, tests in ((1.9, 14), (-1.9, 1), (0.8, 3)):
        seeds = seeds_needed(effect, tests)
        found = []
        for number in (seeds - 1, seeds):
            p = stats.ttest_1samp(rng.normal(effect, 1, (20000, number)), 0, axis=1).pvalue
            found.append(np.mean(p * tests < 0.05))
        assert found[0] - 0.01 < 0.8 < found[1] + 0.01
    assert seeds_needed(1e9) == 2


def test_gaps_that_are_all_nothing_are_no_difference():
    (found,) = differences({"control": {0: 0.7, 1: 0.9}, "other": {0: 0.7, 1: 0.9}}, "control")
    assert found.p == found.adjusted == 1.0


def test_equal_gaps_are_not_tested():
    """Neither as floats, of which 0.6 − 0.5 and 0.5 − 0.4 differ."""
    scores = {"control": {0: 0.5, 1: 0.4}, "same": {0: 0.6, 1: 0.5}, "other": {0: 0.7, 1: 0.9}}
    found = {one.method: one for one in differences(scores, "control")}
    assert math.isnan(found["same"].p) and math.isnan(found["same"].adjusted)
    assert not found["same"].is_distinguishable
    assert found["other"].adjusted == found["other"].p  # what is not tested does not count


@pytest.mark.parametrize("seeds", [2, 3])
def test_accuracies_on_a_small_test_set_claim_nothing_by_their_coarseness(seeds):
    """Three equal methods, 360 test images: differences coincide in one pair of seeds of twenty."""
    rng = np.random.default_rng(5)
    claims = 0
    for _ in range(1000):
        scores = {f"m{i}": dict(enumerate(rng.binomial(360, 0.95, size=seeds) / 360)) for i in range(3)}
        claims += any(found.is_distinguishable for found in differences(scores, "m0"))
    assert claims / 1000 <= 0.06


def test_a_single_seed_tells_nothing():
    (found,) = differences({"control": {0: 0.5}, "other": {0: 0.9}}, "control")
    assert math.isnan(found.p) and not found.is_distinguishable


def test_the_best_control_has_the_highest_mean():
    scores = {"a": {0: 1.0, 1: 0.0}, "b": {0: 0.6, 1: 0.6}, "c": {0: 9.0}}
    assert best_of(scores, ["a", "b"]) == "b"


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="`control`"):
        differences({"a": {0: 1.0}}, "b")
    with pytest.raises(InputError, match="same seeds"):
        differences({"a": {0: 1.0}, "b": {1: 1.0}}, "a")
    with pytest.raises(InputError, match="control to choose"):
        best_of({}, [])
    for options in ({"effect": float("nan")}, {"effect": 1.0, "tests": 0}, {"effect": 1.0, "power": 1.0}):
        with pytest.raises(InputError, match="`effect`"):
            seeds_needed(**options)
    with pytest.raises(InputError, match="a thousand seeds"):
        seeds_needed(0.0)
