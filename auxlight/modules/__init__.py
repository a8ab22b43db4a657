"""LightningModules."""

from auxlight.modules.auxilearn import AuxiLearnModule
from auxlight.modules.classifier import AuxiliaryClassifier, Prediction
from auxlight.modules.maxl import MAXLModule
from auxlight.modules.vgg import MultiHeadVGG

__all__ = ["AuxiLearnModule", "AuxiliaryClassifier", "MAXLModule", "MultiHeadVGG", "Prediction"]
