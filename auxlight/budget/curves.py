"""How quickly a task's labels wear off: its reduction rate, read off a learning curve (TABA)."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar

from auxlight.errors import InputError


class LearningCurve(NamedTuple):
    """M(n) = a − b β^(n / block), fitted to a metric (higher is better) of networks trained on n labels.

    Attributes:
        ceiling: a, the metric with all labels in the world.
        scale: b ≥ 0.
        beta: β, the reduction rate: what a further block of labels tells, as a share of what the one before it told.
        block: labels in a block.
        error: root mean square of the residuals, in units of the metric.
    """

    ceiling: float
    scale: float
    beta: float
    block: float
    error: float

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """The fitted metric of each count (N,)."""
        metric: np.ndarray = self.ceiling - self.scale * self.beta ** (np.asarray(count) / self.block)
        return metric


def fit_curve(counts: Sequence[float], metrics: Sequence[float], block: float | None = None) -> LearningCurve:
    """The least-squares curve through the points of a learning curve.

    For a given β the best a and b are those of a linear regression, so that β alone is searched for: on a grid, then
    by Brent's method around its best point.

    *Our reconstruction*: TABA reads each task's reduction rate off curves of *pseudo*-labels, which are said to have
    the shape of those of true labels at another scale; the form of the curve and its fit are ours.

    Args:
        counts: (N,) labels trained on; at least three different ones.
        metrics: (N,) metric of each training, higher is better; several seeds are several points.
        block: labels in a block; by default the smallest step between two counts.

    Raises:
        InputError: fewer than three different counts, or a metric that is no finite number.
    """
    n, metric = np.asarray(counts, dtype=np.float64), np.asarray(metrics, dtype=np.float64)
    if n.shape != metric.shape or n.ndim != 1 or len(np.unique(n)) < 3:
        raise InputError(
            f"A learning curve needs a metric at three or more different counts. Found {n.tolist()} with "
            f"{len(metric)} metrics."
        )
    if not np.isfinite(metric).all():
        i = int(np.flatnonzero(~np.isfinite(metric))[0])
        raise InputError(f"The metrics of a learning curve must be finite. Found {metric[i]} at {n[i]:g} labels.")
    size = float(np.diff(np.unique(n)).min()) if block is None else float(block)
    if not size > 0:
        raise InputError(f"`block` must be positive. Found block={block}.")

    def regression(beta: float) -> tuple[float, float, float]:
        """a, b and the sum of squares; b is held at 0 where the curve would fall."""
        x = beta ** (n / size)
        spread = x - x.mean()
        slope = float(spread @ metric / max(spread @ spread, 1e-300))
        slope = min(slope, 0.0)
        ceiling = float(metric.mean() - slope * x.mean())
        return ceiling, -slope, float(((metric - ceiling - slope * x) ** 2).sum())

    grid = 1 - np.geomspace(1e-4, 1 - 1e-4, 400)
    losses = [regression(float(beta))[2] for beta in grid]
    i = int(np.argmin(losses))
    around = (float(grid[min(i + 1, len(grid) - 1)]), float(grid[max(i - 1, 0)]))
    beta = float(grid[i])
    if around[0] < around[1]:
        found = minimize_scalar(lambda value: regression(float(value))[2], bounds=around, method="bounded")
        if found.fun <= losses[i]:
            beta = float(found.x)
    ceiling, scale, squares = regression(beta)
    return LearningCurve(ceiling, scale, beta, size, float(np.sqrt(squares / len(n))))
