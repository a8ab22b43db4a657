"""Which task's labels help which other task: relatedness on a small seed set (TABA)."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from auxlight.budget.labels import LabelType
from auxlight.errors import InputError


def relatedness(single: np.ndarray, joint: np.ndarray, level: float = 0.95, floor: float = 0.01) -> np.ndarray:
    """s_ij ≥ 0: by what share task j's metric rises when task i trains beside it; s_ii = 1.

    The mean over the seeds of (joint − single) / single, where it is above 0 by a one-sided t-test, and 0 elsewhere:
    with few seeds half of all useless pairs would else look helpful. (Seeds that share their seed set, as `Estimator`'s
    do, are not independent, and the test is somewhat too lenient.)

    TABA's relatedness is the change of the metric in joint training on a small seed set; taking it relative, cutting it
    at 0 and asking for significance are *our reconstruction*.

    Args:
        single: (S, T) metric of each task trained alone, for each of S ≥ 3 seeds; higher is better.
        joint: (S, T, T): [s, i, j] the metric of task j trained together with task i; the diagonal is not read.
        level: of the t-test, for each pair; 0.5 takes every positive mean.
        floor: a metric below it counts as this much in the denominator, so that a task that fails cannot seem helped
            without end.

    Returns:
        (T, T).

    Raises:
        InputError: fewer than three seeds, shapes that do not fit, metrics that are not finite, or below 0.
    """
    single, joint = np.asarray(single, dtype=np.float64), np.asarray(joint, dtype=np.float64)
    if single.ndim != 2 or joint.shape != (*single.shape, single.shape[1]):
        raise InputError(
            f"`single` must be of shape (seeds, tasks), `joint` of (seeds, tasks, tasks). Found {single.shape} and "
            f"{joint.shape}."
        )
    seeds, tasks = single.shape
    if seeds < 3:
        raise InputError(f"Relatedness needs three seeds or more. Found {seeds}.")
    off = ~np.eye(tasks, dtype=bool)
    if not np.isfinite(single).all() or not np.isfinite(joint[:, off]).all():
        raise InputError("The metrics of the seed trainings must be finite. Found nan or inf: look at those runs.")
    if not (single >= 0).all():
        raise InputError(f"Metrics must be 0 or above, for gains are relative. Found {single.min():g}.")
    change = (joint - single[:, None, :]) / np.maximum(single, floor)[:, None, :]
    mean, error = change.mean(0), change.std(0, ddof=1) / np.sqrt(seeds)
    related = np.where((mean > 0) & (mean > stats.t.ppf(level, seeds - 1) * error), mean, 0.0)
    related[~off] = 1.0
    return related


def information(types: Sequence[LabelType], related: np.ndarray) -> list[float]:
    """I_i = Σ_j ω_j s_ij: what the first block of labels of type i is worth to all tasks, by their priorities ω.

    *Our reconstruction* of how TABA joins relatedness and priorities.

    Args:
        types: T label types.
        related: (T, T), of `relatedness`.

    Raises:
        InputError: a matrix of another size.
    """
    if np.shape(related) != (len(types), len(types)):
        raise InputError(f"`related` must be of shape {(len(types),) * 2}. Found {np.shape(related)}.")
    priorities = np.array([one.priority for one in types])
    return [float(value) for value in related @ priorities]
