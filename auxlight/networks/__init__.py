"""Trunks and heads."""

from auxlight.networks.agent import AgentNetwork
from auxlight.networks.heads import Head
from auxlight.networks.vgg import VGG

__all__ = ["VGG", "AgentNetwork", "Head"]
