"""LightningModules."""

from auxlight.modules.classifier import AuxiliaryClassifier, Prediction
from auxlight.modules.maxl import MAXLModule
from auxlight.modules.vgg import MultiHeadVGG

__all__ = ["AuxiliaryClassifier", "MAXLModule", "MultiHeadVGG", "Prediction"]
