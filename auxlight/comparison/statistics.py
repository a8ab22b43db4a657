"""What may be said of methods that ran with the same seeds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from auxlight.errors import InputError

Scores = Mapping[str, Mapping[int, float]]  # method → seed → score


class Interval(NamedTuple):
    """A mean and its confidence interval (Student's t); low and high are nan for a single value."""

    mean: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2


class Difference(NamedTuple):
    """Of a method to a control, seed by seed.

    Attributes:
        method: whose scores are compared.
        control: with whose.
        interval: mean difference (method − control) and its 95 % interval, of this comparison alone.
        p: of the paired t-test, two-sided; nan where there is none: for a single seed, or where all differ by the same,
            other than 0.
        adjusted: p by Holm's correction for all comparisons with this control.
    """

    method: str
    control: str
    interval: Interval
    p: float
    adjusted: float

    @property
    def is_distinguishable(self) -> bool:
        """Whether the corrected test, at 5 %, tells the two apart."""
        return bool(self.adjusted < 0.05)


def mean_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> Interval:
    """Mean of independent values (N,), and its confidence interval."""
    values = np.asarray(values, dtype=np.float64)
    mean = float(values.mean())
    if len(values) < 2:
        return Interval(mean, float("nan"), float("nan"))
    half = float(stats.t.ppf((1 + level) / 2, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, mean - half, mean + half)


def differences(scores: Scores, control: str, planned: int = 0) -> list[Difference]:
    """Of every other method to a control, on the seeds that both ran with, corrected for their number.

    Args:
        scores: of each method and seed; higher is better.
        control: one of the methods.
        planned: comparisons with it that the correction is for, where that is more than can be made so far: else what
            is told apart today would be taken back when more methods have run.

    Raises:
        InputError: a control that is no method, or shares no seed with one.
    """
    if control not in scores:
        raise InputError(f"`control` must be one of the methods, {sorted(scores)}. Found control={control!r}.")
    found = []
    for method in scores:
        if method == control:
            continue
        seeds = sorted(scores[method].keys() & scores[control].keys())
        if not seeds:
            raise InputError(f"{method!r} and {control!r} must have run with the same seeds. Found none in common.")
        gaps = np.array([scores[method][seed] - scores[control][seed] for seed in seeds])
        found.append((method, mean_interval(gaps), _paired_p(gaps)))
    adjusted = holm([p for _, _, p in found], planned)
    return [Difference(method, control, gap, p, q) for (method, gap, p), q in zip(found, adjusted, strict=True)]


def holm(p_values: Sequence[float], planned: int = 0) -> list[float]:
    """Holm's step-down correction: the family-wise error of all tests stays below the level of each.

    nan, a test that was not possible, stays nan and does not count.

    Args:
        p_values: of the tests that were made.
        planned: tests of the family, if it has more; p of those that are missing is taken for 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    order = [i for i in np.argsort(p) if not np.isnan(p[i])]
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (max(len(order), planned) - rank) * p[i]))
        adjusted[i] = largest
    return [float(value) for value in adjusted]


def seeds_needed(effect: float, tests: int = 1, power: float = 0.8, level: float = 0.05) -> int:
    """Seeds with which the paired t-test, corrected for many tests, tells two methods apart as often as `power` says.

    Of the hardest case of Holm's correction, in which no other difference is told apart.

    Args:
        effect: mean difference in units of the standard deviation of differences between seeds.
        tests: comparisons with one control.
        power: probability that the difference is told apart, in (0, 1).
        level: of the family of tests, in (0, 1).

    Raises:
        InputError: numbers out of range, or an effect that a thousand seeds do not show.
    """
    if not np.isfinite(effect) or tests < 1 or not 0 < power < 1 or not 0 < level < 1:
        raise InputError(
            "`effect` must be a finite number, `tests` at least 1, `power` and `level` between 0 and 1. "
            f"Found effect={effect}, tests={tests}, power={power}, level={level}."
        )
    for seeds in range(2, 1001):
        limit = stats.t.ppf(1 - level / tests / 2, seeds - 1)
        shift = abs(effect) * np.sqrt(seeds)
        if stats.nct.sf(limit, seeds - 1, shift) >= power:  # in the other direction it happens next to never
            return seeds
    raise InputError(f"`effect` must be one that a thousand seeds show. Found effect={effect}.")


def best_of(scores: Scores, methods: Sequence[str]) -> str:
    """The method of the highest mean over the seeds that all of them have, for a choice on validation scores.

    Where there is no such seed, over its own.

    Raises:
        InputError: no method.
    """
    if not methods:
        raise InputError("There must be a control to choose. Found none.")
    shared = set.intersection(*(set(scores[method]) for method in methods))
    return max(methods, key=lambda method: float(np.mean([scores[method][s] for s in shared or scores[method]])))


def _paired_p(gaps: np.ndarray) -> float:
    """Of the paired t-test; 1 where all gaps are 0.

    Gaps that are equal by the coarseness of accuracies would be certain to it, and no test at all is honest there.
    """
    if not gaps.any():
        return 1.0 if len(gaps) > 1 else float("nan")
    if np.ptp(gaps) <= 1e-9:  # 0.6 − 0.5 and 0.5 − 0.4 are not the same to a computer
        return float("nan")
    return float(stats.ttest_1samp(gaps, 0).pvalue)
