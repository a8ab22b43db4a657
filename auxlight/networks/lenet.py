"""LeNet, ending in one feature vector."""

from torch import Tensor, nn

from auxlight.errors import InputError


class LeNet(nn.Module):
    """Two convolutions with pools and a linear layer, as the studies of Multi-MNIST use it (Sener & Koltun, 2018).

    Args:
        feature_dim: size of the features; there 50.
        in_channels: channels of the image.

    Shape:
        (B, in_channels, H, W) with H, W ≥ 16 → (B, feature_dim). 28 × 28 pixels are the studies'; of others an average
        pool makes the same 4 × 4 map.
    """

    def __init__(self, feature_dim: int = 50, in_channels: int = 3) -> None:
        super().__init__()
        if feature_dim < 1:
            raise InputError(f"`feature_dim` must be at least 1. Found feature_dim={feature_dim}.")
        self.feature_dim = feature_dim
        self.in_channels = in_channels
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 10, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Conv2d(10, 20, 5),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(320, feature_dim),
            nn.ReLU(),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, feature_dim) of images (B, C, H, W)."""
        if image.shape[1] != self.in_channels or min(image.shape[-2:]) < 16:
            raise InputError(
                f"LeNet with in_channels={self.in_channels} needs images of as many channels and at least 16 × 16 "
                f"pixels. Found images of shape {tuple(image.shape[1:])}."
            )
        features: Tensor = self.layers(image)
        return features
