"""Methods, controls and seeds: what may be said of them."""

from auxlight.comparison.statistics import Difference, Interval, best_of, differences, holm, mean_interval

__all__ = ["Difference", "Interval", "best_of", "differences", "holm", "mean_interval"]
