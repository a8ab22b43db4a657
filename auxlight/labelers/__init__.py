"""Sources of auxiliary labels, one class each."""

from auxlight.labelers.actions import LabelActions
from auxlight.labelers.agent import AgentLabels
from auxlight.labelers.base import Labeler
from auxlight.labelers.cluster import ClusterLabels
from auxlight.labelers.human import HumanLabels
from auxlight.labelers.human_weights import HumanWeights
from auxlight.labelers.network import LabelNetwork
from auxlight.labelers.random import RandomLabels
from auxlight.labelers.uniform import UniformLabels

__all__ = [
    "AgentLabels",
    "ClusterLabels",
    "HumanLabels",
    "HumanWeights",
    "LabelActions",
    "LabelNetwork",
    "Labeler",
    "RandomLabels",
    "UniformLabels",
]
