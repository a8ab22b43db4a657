"""How quickly a task's labels wear off: its reduction rate, read off a learning curve (TABA)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar

from auxlight.budget.gain import Gain, GeometricGain, NoGain
from auxlight.errors import InputError
from auxlight.seeding import derive_seed

GRID = 1 - np.geomspace(1e-3, 1 - 1e-3, 400)  # of β, from 0.999 down
BOOTSTRAPS = 200


class LearningCurve(NamedTuple):
    """M(n) = a − b β^(n / block), fitted to a metric (higher is better) of networks trained on n labels.

    Attributes:
        ceiling: a, the metric with all labels in the world.
        scale: b ≥ 0; 0 where the curve does not rise: more labels of that type tell nothing.
        beta: β, the reduction rate: what a further block of labels tells, as a share of what the one before it told.
        block: labels in a block.
        error: root mean square of the residuals, in units of the metric.
        beta_interval: 95 % interval of β, by a bootstrap of the residuals.
    """

    ceiling: float
    scale: float
    beta: float
    block: float
    error: float
    beta_interval: tuple[float, float]

    @property
    def gain(self) -> Gain:
        """What further labels tell: nothing, where the curve does not rise."""
        return GeometricGain(self.beta, self.block) if self.scale > 0 else NoGain()

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """The fitted metric of each count (N,)."""
        metric: np.ndarray = self.ceiling - self.scale * self.beta ** (np.asarray(count) / self.block)
        return metric


def fit_curve(
    counts: Sequence[float],
    metrics: Sequence[float],
    block: float | None = None,
    level: float = 0.95,
    splits: Sequence[int] | None = None,
) -> LearningCurve:
    """The least-squares curve through the points of a learning curve.

    For a given β the best a and b are those of a linear regression, so that β alone is searched for: on a grid, then
    by Brent's method around its best point. A curve that does not fit better than a constant (F-test) has no rise; its
    β would be an accident.

    How well β is known depends on the noise: with 18 points and b = 0.5 an error of 0.002 per point leaves it within
    0.02, one of 0.03 within about 0.2 (`beta_interval`).

    *Our reconstruction*: TABA reads each task's reduction rate off curves of *pseudo*-labels, which are said to have
    the shape of those of true labels at another scale; the form of the curve and its fit are ours.

    Args:
        counts: (N,) labels trained on; at least three different ones, and four points.
        metrics: (N,) metric of each training, higher is better; several seeds are several points.
        block: labels in a block; by default the smallest step between two counts.
        level: of the F-test for a rise.
        splits: (N,) which held-out images a point was measured on. They have a level of their own, which is fitted, too
            (a is the mean of them), and is no noise. By default the same for all points.

    Raises:
        InputError: fewer than three different counts, or than three points more than splits, or a metric that is no
            finite number.
    """
    n, metric = np.asarray(counts, dtype=np.float64), np.asarray(metrics, dtype=np.float64)
    own = np.zeros(len(n), dtype=np.int64) if splits is None else np.unique(splits, return_inverse=True)[1]
    if n.shape != metric.shape or n.ndim != 1 or len(own) != len(n):
        raise InputError(
            f"A learning curve needs a metric, and a split if any, for each count. Found {n.size} counts, "
            f"{metric.size} metrics, {len(own)} splits."
        )
    groups = int(own.max(initial=0)) + 1
    if len(np.unique(n)) < 3 or len(n) < groups + 3:
        raise InputError(
            f"A learning curve needs {groups + 3} metrics or more, at three or more different counts. "
            f"Found {n.tolist()} with {len(metric)} metrics."
        )
    if not np.isfinite(metric).all():
        i = int(np.flatnonzero(~np.isfinite(metric))[0])
        raise InputError(f"The metrics of a learning curve must be finite. Found {metric[i]} at {n[i]:g} labels.")
    size = float(np.diff(np.unique(n)).min()) if block is None else float(block)
    if not size > 0:
        raise InputError(f"`block` must be positive. Found block={block}.")
    losses = _regressions(n / size, metric, GRID, own)[2]
    i = int(np.argmin(losses))
    beta = float(GRID[i])
    around = (float(GRID[min(i + 1, len(GRID) - 1)]), float(GRID[max(i - 1, 0)]))

    def loss(value: float) -> float:
        return float(_regressions(n / size, metric, np.array([value]), own)[2][0])

    found = minimize_scalar(loss, bounds=around, method="bounded")
    if found.fun <= losses[i]:
        beta = float(found.x)
    ceiling, scale, squares = (float(part[0]) for part in _regressions(n / size, metric, np.array([beta]), own))
    within = _within(metric, own)
    flat = float((within**2).sum())
    if scale == 0 or not _is_better(flat, squares, len(n) - groups - 2, level):
        error = float(np.sqrt(flat / len(n)))
        return LearningCurve(float(metric.mean()), 0.0, beta, size, error, (float("nan"), float("nan")))
    fitted = ceiling - scale * beta ** (n / size)
    rng = np.random.default_rng(derive_seed("curve", len(n)))
    again = fitted + rng.choice(_within(metric - fitted, own), size=(BOOTSTRAPS, len(n)))
    betas = [float(GRID[int(np.argmin(_regressions(n / size, row, GRID, own)[2]))]) for row in again]
    low, high = np.quantile(betas, (0.025, 0.975))
    error = float(np.sqrt(squares / len(n)))
    return LearningCurve(ceiling, scale, beta, size, error, (float(low), float(high)))


def _regressions(
    blocks: np.ndarray, metric: np.ndarray, betas: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each β: a, b and the sum of squares; b is held at 0 where the curve would fall."""
    x = betas[:, None] ** blocks
    spread, deviation = _within(x, own), _within(metric, own)
    slope = np.minimum(spread @ deviation / np.maximum((spread**2).sum(1), 1e-300), 0.0)
    squares = ((deviation - slope[:, None] * spread) ** 2).sum(1)
    return metric.mean() - slope * x.mean(1), -slope, squares


def _within(values: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Values (…, N) less the mean of their split."""
    member = np.eye(int(own.max()) + 1)[own]
    deviations: np.ndarray = values - (values @ member / member.sum(0)) @ member.T
    return deviations


def _is_better(flat: float, squares: float, freedom: int, level: float) -> bool:
    """Whether the curve, of two more parameters, fits better than a constant."""
    if squares <= 1e-12 * flat:
        return flat > 0
    ratio = ((flat - squares) / 2) / (squares / freedom)
    return bool(stats.f.sf(ratio, 2, freedom) < 1 - level)
