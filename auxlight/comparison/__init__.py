"""Methods, controls and seeds: what may be said of them."""

from auxlight.comparison.cluster import RayCluster
from auxlight.comparison.record import RunRecord
from auxlight.comparison.runner import Processes, Workers, run_all
from auxlight.comparison.spec import Common, Comparison, Method, Run
from auxlight.comparison.statistics import Difference, Interval, best_of, differences, holm, mean_interval, seeds_needed
from auxlight.comparison.tuning import Tuning

__all__ = [
    "Common",
    "Comparison",
    "Difference",
    "Interval",
    "Method",
    "Processes",
    "RayCluster",
    "Run",
    "RunRecord",
    "Tuning",
    "Workers",
    "best_of",
    "differences",
    "holm",
    "mean_interval",
    "run_all",
    "seeds_needed",
]
