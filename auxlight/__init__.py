"""Auxiliary learning with PyTorch Lightning: labels and weights of the auxiliary task are learned, not made by hand."""

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.combiners import (
    ARML,
    Aggregation,
    AuxiNash,
    CombinationNetwork,
    Combiner,
    DynamicWeightAverage,
    GradientCombiner,
    GradientCosine,
    GradNorm,
    OnlineAuxiliary,
    RandomWeights,
    SLGrad,
    StepContext,
    TaskLosses,
    UncertaintyWeighting,
    Update,
    WeightedSum,
)
from auxlight.datamodules import (
    CIFAR10DataModule,
    CIFAR100SuperclassDataModule,
    DigitsDataModule,
    ImageDataModule,
    ImageFolderDataModule,
    MultiDigitsDataModule,
    MultiMNISTDataModule,
    NpzDataModule,
    SVHNDataModule,
)
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import DoubleBackward, LookAheadGradient, NeumannGradient
from auxlight.influence import FiniteDifference, ForwardMode
from auxlight.inspection import Inspection
from auxlight.labelers import (
    AgentLabels,
    ClusterLabels,
    HumanLabels,
    HumanWeights,
    Labeler,
    LabelNetwork,
    RandomLabels,
    UniformLabels,
)
from auxlight.modules import AuxiLearnModule, AuxiliaryClassifier, MAXLModule, MultiHeadVGG, MultiHeadWideResNet
from auxlight.networks import VGG, Head, LeNet, WideResNet
from auxlight.rl import BatchReward, ImprovementReward, InfluenceReward, RLAuxCallback
from auxlight.tasks import AuxiliaryTask, ExemplarTask, LabelledTask, PlaceTask, RotationTask

__version__ = "0.1.0"

__all__ = [
    "ARML",
    "VGG",
    "AgentLabels",
    "Aggregation",
    "AuxiLearnModule",
    "AuxiNash",
    "AuxiliaryClassifier",
    "AuxiliaryTarget",
    "AuxiliaryTask",
    "Batch",
    "BatchReward",
    "CIFAR10DataModule",
    "CIFAR100SuperclassDataModule",
    "ClusterLabels",
    "CombinationNetwork",
    "Combiner",
    "DigitsDataModule",
    "DoubleBackward",
    "DynamicWeightAverage",
    "ExemplarTask",
    "FiniteDifference",
    "ForwardMode",
    "GradNorm",
    "GradientCombiner",
    "GradientCosine",
    "Head",
    "HumanLabels",
    "HumanWeights",
    "ImageDataModule",
    "ImageFolderDataModule",
    "ImprovementReward",
    "InfluenceReward",
    "InputError",
    "Inspection",
    "LabelHierarchy",
    "LabelNetwork",
    "Labeler",
    "LabelledTask",
    "LeNet",
    "LookAheadGradient",
    "MAXLModule",
    "MultiDigitsDataModule",
    "MultiHeadVGG",
    "MultiHeadWideResNet",
    "MultiMNISTDataModule",
    "NeumannGradient",
    "NpzDataModule",
    "OnlineAuxiliary",
    "PlaceTask",
    "RLAuxCallback",
    "RandomLabels",
    "RandomWeights",
    "RotationTask",
    "SLGrad",
    "SVHNDataModule",
    "StepContext",
    "TaskLosses",
    "UncertaintyWeighting",
    "UniformLabels",
    "Update",
    "WeightedSum",
    "WideResNet",
]
