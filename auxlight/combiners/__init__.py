"""Rules that combine the losses of the tasks, one class each."""

from auxlight.combiners.aggregation import Aggregation
from auxlight.combiners.arml import ARML
from auxlight.combiners.auxinash import AuxiNash
from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.combination import CombinationNetwork
from auxlight.combiners.context import StepContext
from auxlight.combiners.dwa import DynamicWeightAverage
from auxlight.combiners.gradients import GradientCombiner, TaskGradients, TaskWeights, Update
from auxlight.combiners.gradnorm import GradNorm
from auxlight.combiners.learned import LearnedCombiner
from auxlight.combiners.random_weights import RandomWeights
from auxlight.combiners.similarity import GradientCosine, OnlineAuxiliary
from auxlight.combiners.slgrad import SLGrad
from auxlight.combiners.uncertainty import UncertaintyWeighting
from auxlight.combiners.weighted_sum import WeightedSum

__all__ = [
    "ARML",
    "Aggregation",
    "AuxiNash",
    "CombinationNetwork",
    "Combiner",
    "DynamicWeightAverage",
    "GradNorm",
    "GradientCombiner",
    "GradientCosine",
    "LearnedCombiner",
    "OnlineAuxiliary",
    "RandomWeights",
    "SLGrad",
    "StepContext",
    "TaskGradients",
    "TaskLosses",
    "TaskWeights",
    "UncertaintyWeighting",
    "Update",
    "WeightedSum",
]
