"""Auxiliary tasks, one class each."""

from auxlight.tasks.base import AuxiliaryTask, TaskPlace, task_names
from auxlight.tasks.exemplar import ExemplarTask
from auxlight.tasks.labelled import LabelledTask
from auxlight.tasks.place import PlaceTask
from auxlight.tasks.rotation import RotationTask

__all__ = [
    "AuxiliaryTask",
    "ExemplarTask",
    "LabelledTask",
    "PlaceTask",
    "RotationTask",
    "TaskPlace",
    "task_names",
]
