"""What was learned, as pictures and figures in TensorBoard."""

from auxlight.inspection.board import Board
from auxlight.inspection.callback import Inspection
from auxlight.inspection.confusion import ConfusionMatrices
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.gradients import TaskGradients
from auxlight.inspection.grids import LabelGrids
from auxlight.inspection.projector import FeatureProjector
from auxlight.inspection.usage import LabelUsage
from auxlight.inspection.view import View
from auxlight.inspection.weights import WeightPlots

__all__ = [
    "Board",
    "ConfusionMatrices",
    "Evidence",
    "FeatureProjector",
    "Inspection",
    "LabelGrids",
    "LabelUsage",
    "TaskGradients",
    "View",
    "WeightPlots",
]
