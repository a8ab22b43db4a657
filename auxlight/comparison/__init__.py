"""Methods, controls and seeds: what may be said of them."""

from auxlight.comparison.record import RunRecord
from auxlight.comparison.runner import run_all
from auxlight.comparison.spec import Common, Comparison, Method, Run
from auxlight.comparison.statistics import Difference, Interval, best_of, differences, holm, mean_interval
from auxlight.comparison.tuning import Tuning

__all__ = [
    "Common",
    "Comparison",
    "Difference",
    "Interval",
    "Method",
    "Run",
    "RunRecord",
    "Tuning",
    "best_of",
    "differences",
    "holm",
    "mean_interval",
    "run_all",
]
