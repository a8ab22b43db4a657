"""Auxiliary learning with PyTorch Lightning: labels and weights of the auxiliary task are learned, not made by hand."""

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.combiners import Combiner, WeightedSum
from auxlight.datamodules import (
    CIFAR10DataModule,
    CIFAR100SuperclassDataModule,
    DigitsDataModule,
    ImageDataModule,
    NpzDataModule,
    SVHNDataModule,
)
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import DoubleBackward, LookAheadGradient, NeumannGradient
from auxlight.influence import FiniteDifference, ForwardMode
from auxlight.labelers import AgentLabels, HumanLabels, Labeler, LabelNetwork, RandomLabels, UniformLabels
from auxlight.modules import AuxiLearnModule, AuxiliaryClassifier, MAXLModule, MultiHeadVGG
from auxlight.networks import VGG
from auxlight.rl import BatchReward, ImprovementReward, InfluenceReward, RLAuxCallback

__version__ = "0.1.0"

__all__ = [
    "VGG",
    "AgentLabels",
    "AuxiLearnModule",
    "AuxiliaryClassifier",
    "AuxiliaryTarget",
    "Batch",
    "BatchReward",
    "CIFAR10DataModule",
    "CIFAR100SuperclassDataModule",
    "Combiner",
    "DigitsDataModule",
    "DoubleBackward",
    "FiniteDifference",
    "ForwardMode",
    "HumanLabels",
    "ImageDataModule",
    "ImprovementReward",
    "InfluenceReward",
    "InputError",
    "LabelHierarchy",
    "LabelNetwork",
    "Labeler",
    "LookAheadGradient",
    "MAXLModule",
    "MultiHeadVGG",
    "NeumannGradient",
    "NpzDataModule",
    "RLAuxCallback",
    "RandomLabels",
    "SVHNDataModule",
    "UniformLabels",
    "WeightedSum",
]
