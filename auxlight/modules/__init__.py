"""LightningModules."""

from auxlight.modules.classifier import AuxiliaryClassifier, Prediction
from auxlight.modules.vgg import MultiHeadVGG

__all__ = ["AuxiliaryClassifier", "MultiHeadVGG", "Prediction"]
