"""The agent's network: eyes, label and weight logits, value."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class AgentNetwork(nn.Module):
    """What is seen → features → action logits and value.

    Plain PyTorch: the RL library wraps it, labelling needs nothing else.

    Args:
        eyes: what is seen of the images, such as (B, C, H, W) → (B, eyes_dim).
        eyes_dim: size of the eyes' output.
        feature_dim: size of the features that both heads read (paper: 256).
        action_sizes: number of choices of each part of an action: (labels,) or (labels, weight levels).
        num_primary: number of primary classes, where the agent is shown the primary label; 0 (paper) where it is not.
    """

    def __init__(
        self,
        eyes: nn.Module,
        eyes_dim: int,
        feature_dim: int,
        action_sizes: Sequence[int],
        num_primary: int = 0,
    ) -> None:
        super().__init__()
        self.feature_dim = feature_dim
        self.action_sizes = tuple(action_sizes)
        self.num_primary = num_primary
        self.eyes = eyes
        self.mixer = nn.Sequential(nn.Linear(eyes_dim + num_primary, feature_dim), nn.ReLU())
        self.action_head = nn.Linear(feature_dim, sum(action_sizes))
        self.value_head = nn.Linear(feature_dim, 1)
        # PPO's usual start: near-uniform actions, unit-scale values.
        for layer, gain in ((self.action_head, 0.01), (self.value_head, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)
        self._learning = {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    @contextmanager
    def learns(self) -> Iterator[None]:
        """Inside this block parameters have gradients, but those that were frozen when it was made; outside, none."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._learning)
        try:
            yield
        finally:
            self.requires_grad_(False)
            self.zero_grad()

    def features(self, seen: Tensor, primary: Tensor | None = None) -> Tensor:
        """(B, feature_dim) of what is seen, (B, …), and of one-hot primary labels (B, num_primary) where shown."""
        # The rollout buffer hands out plain memory; convolutions are faster on this layout.
        seen = self.eyes(seen.contiguous(memory_format=torch.channels_last) if seen.ndim == 4 else seen)
        features: Tensor = self.mixer(seen if primary is None else torch.cat([seen, primary], 1))
        return features

    def forward(self, seen: Tensor, primary: Tensor | None = None) -> Tensor:
        """Action logits (B, Σ action_sizes); primary labels (B,) int64 where they are shown."""
        shown = None
        if self.num_primary and primary is not None:
            shown = nn.functional.one_hot(primary, self.num_primary).to(seen.dtype)
        logits: Tensor = self.action_head(self.features(seen, shown))
        return logits

    def act(self, seen: Tensor, primary: Tensor | None = None) -> Tensor:
        """The most probable action of each part, (B, len(action_sizes)) int64."""
        return torch.stack([logits.argmax(-1) for logits in self(seen, primary).split(self.action_sizes, -1)], -1)
