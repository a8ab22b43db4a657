"""Auxiliary tasks, one class each."""

from auxlight.tasks.base import AuxiliaryTask
from auxlight.tasks.labelled import LabelledTask

__all__ = ["AuxiliaryTask", "LabelledTask"]
