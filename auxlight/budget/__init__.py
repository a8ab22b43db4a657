"""TABA, label budget allocation: which labels to buy before training, when they differ in price.

No implementation of it is public. What its description leaves open is named *our reconstruction* where it stands.
"""

from auxlight.budget.allocate import allocate
from auxlight.budget.curves import LearningCurve, fit_curve
from auxlight.budget.estimate import Estimate, Estimator
from auxlight.budget.gain import Gain, GeometricGain
from auxlight.budget.heuristics import (
    at_random,
    cheapest_first,
    equal_counts,
    equal_spend,
    heuristics,
    main_only,
    proportional,
)
from auxlight.budget.images import CIFAR100Levels, DigitTasks, NpzTasks, TaskData, TaskImages
from auxlight.budget.joint import JointClassifier, JointTraining, Training
from auxlight.budget.labels import LabelType, Plan
from auxlight.budget.relatedness import information, relatedness
from auxlight.budget.simulate import compare, relative_gain
from auxlight.budget.study import BudgetStudy

__all__ = [
    "BudgetStudy",
    "CIFAR100Levels",
    "DigitTasks",
    "Estimate",
    "Estimator",
    "Gain",
    "GeometricGain",
    "JointClassifier",
    "JointTraining",
    "LabelType",
    "LearningCurve",
    "NpzTasks",
    "Plan",
    "TaskData",
    "TaskImages",
    "Training",
    "allocate",
    "at_random",
    "cheapest_first",
    "compare",
    "equal_counts",
    "equal_spend",
    "fit_curve",
    "heuristics",
    "information",
    "main_only",
    "proportional",
    "relatedness",
    "relative_gain",
]
