import math

import pytest
from torch import nn

from auxlight import (
    AuxiliaryClassifier,
    AuxiliaryTask,
    ExemplarTask,
    HumanLabels,
    InputError,
    LabelledTask,
    PlaceTask,
    RotationTask,
)
from auxlight.tasks import task_names


class Brightness(AuxiliaryTask):
    """An own task, whose name does not end in "Task"."""

    def forward(self, trunk, features, batch):
        raise NotImplementedError


class PrimaryTask(Brightness):
    """Takes a name that is taken."""


class Pose3(Brightness):
    """A name that ends in a number."""


@pytest.mark.parametrize(
    ("tasks", "names"),
    [
        ([], []),
        ([RotationTask], ["rotation"]),
        (
            [ExemplarTask, RotationTask, PlaceTask, RotationTask, ExemplarTask, RotationTask],
            ["exemplar", "rotation", "place", "rotation_2", "exemplar_2", "rotation_3"],
        ),
        ([Brightness, Brightness], ["brightness", "brightness_2"]),
        ([PrimaryTask, PrimaryTask], ["primary_2", "primary_3"]),
        ([Pose3, RotationTask, Pose3], ["pose3", "rotation", "pose3_2"]),
    ],
)
def test_names_are_the_classes_and_those_of_a_kind_are_counted(tasks, names):
    assert task_names([task() for task in tasks]) == ["primary", *names]


def test_a_module_names_the_labelled_task_first():
    tasks = [RotationTask(), LabelledTask(HumanLabels())]
    module = AuxiliaryClassifier((2, 2), nn.Flatten(), feature_dim=12, labeler=HumanLabels(), tasks=tasks)
    assert module.combiner.names == ("primary", "labelled", "rotation", "labelled_2")
    assert [type(task) for task in module.tasks] == [LabelledTask, RotationTask, LabelledTask]
    assert module.labelled_task is module.tasks[0]


MAKE = {
    "LabelledTask": lambda weight: LabelledTask(HumanLabels(), weight),
    "RotationTask": RotationTask,
    "ExemplarTask": ExemplarTask,
    "PlaceTask": PlaceTask,
    "Brightness": Brightness,
}


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf, -math.inf])
def test_weights_out_of_range_are_refused(name, weight):
    with pytest.raises(InputError, match=f"`weight` of {name} must be a finite number ≥ 0. Found weight={weight}"):
        MAKE[name](weight)


@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("weight", [0.0, 2.5])
def test_other_weights_are_kept(name, weight):
    assert MAKE[name](weight).weight == weight


def test_what_is_no_task_is_refused():
    with pytest.raises(InputError, match=r"`tasks` must hold auxiliary tasks. Found a Linear"):
        AuxiliaryClassifier((2, 2), nn.Flatten(), feature_dim=12, tasks=[nn.Linear(1, 1)])
