"""The part of a network that one task owns."""

from torch import nn


class Head(nn.Sequential):
    """Two-layer head: Linear, ReLU, Linear.

    Args:
        feature_dim: size of the trunk's features.
        num_classes: number of logits.
        hidden_dim: size between the two layers; the features' size by default (the papers: 512 for both).

    Shape:
        (B, feature_dim) → (B, num_classes).
    """

    def __init__(self, feature_dim: int, num_classes: int, hidden_dim: int | None = None) -> None:
        hidden_dim = feature_dim if hidden_dim is None else hidden_dim
        super().__init__(nn.Linear(feature_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, num_classes))
