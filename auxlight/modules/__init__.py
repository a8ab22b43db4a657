"""LightningModules."""

from auxlight.modules.auxilearn import AuxiLearnModule
from auxlight.modules.classifier import AuxiliaryClassifier, Prediction
from auxlight.modules.maxl import MAXLModule
from auxlight.modules.vgg import MultiHeadVGG
from auxlight.modules.wide_resnet import MultiHeadWideResNet

__all__ = ["AuxiLearnModule", "AuxiliaryClassifier", "MAXLModule", "MultiHeadVGG", "MultiHeadWideResNet", "Prediction"]
