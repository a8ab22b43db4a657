"""LightningModules."""

from auxlight.modules.auxilearn import AuxiLearnModule
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.modules.maxl import MAXLModule
from auxlight.modules.outputs import Prediction
from auxlight.modules.vgg import MultiHeadVGG
from auxlight.modules.wide_resnet import MultiHeadWideResNet

__all__ = ["AuxiLearnModule", "AuxiliaryClassifier", "MAXLModule", "MultiHeadVGG", "MultiHeadWideResNet", "Prediction"]
