"""The agent's network: eyes, label and weight logits, value."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class AgentNetwork(nn.Module):
    """Trunk → features → action logits and value. Plain PyTorch: the RL library wraps it, labelling needs nothing else.

    Args:
        trunk: images (B, C, H, W) → (B, trunk_dim).
        trunk_dim: size of the trunk's output.
        feature_dim: size of the features that both heads read (paper: 256).
        action_sizes: number of choices of each part of an action: (labels,) or (labels, weight levels).
    """

    def __init__(self, trunk: nn.Module, trunk_dim: int, feature_dim: int, action_sizes: Sequence[int]) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.action_sizes = tuple(action_sizes)
        self.body = nn.Sequential(trunk, nn.Linear(trunk_dim, feature_dim), nn.ReLU())
        self.action_head = nn.Linear(feature_dim, sum(action_sizes))
        self.value_head = nn.Linear(feature_dim, 1)
        # PPO's usual start: near-uniform actions, unit-scale values.
        for layer, gain in ((self.action_head, 0.01), (self.value_head, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Action logits (B, Σ action_sizes)."""
        logits: Tensor = self.action_head(self.body(image))
        return logits

    def act(self, image: Tensor) -> Tensor:
        """The most probable action of each part, (B, len(action_sizes)) int64."""
        return torch.stack([logits.argmax(-1) for logits in self(image).split(self.action_sizes, -1)], -1)
