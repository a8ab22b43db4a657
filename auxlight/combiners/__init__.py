"""Rules that combine the losses of the tasks, one class each."""

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.weighted_sum import WeightedSum

__all__ = ["Combiner", "TaskLosses", "WeightedSum"]
