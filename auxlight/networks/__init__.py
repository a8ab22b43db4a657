"""Trunks and heads."""

from auxlight.networks.agent import AgentNetwork
from auxlight.networks.heads import Head
from auxlight.networks.lenet import LeNet
from auxlight.networks.vgg import VGG
from auxlight.networks.wide_resnet import WideResNet

__all__ = ["VGG", "AgentNetwork", "Head", "LeNet", "WideResNet"]
