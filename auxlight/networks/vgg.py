"""VGG with a norm layer after each convolution, ending in one feature vector."""

from math import gcd
from typing import Literal

from torch import Tensor, nn

from auxlight.errors import InputError

# Convolutions per stage; each stage ends in a 2 × 2 max-pool.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
Norm = Literal["batch", "group"]
WIDTHS = (64, 128, 256, 512, 512)


class VGG(nn.Module):
    """VGG 11, 13, 16 or 19 without the classifier (Simonyan & Zisserman, 2015), as MAXL and RL-AUX use it.

    Args:
        depth: 11, 13, 16 or 19.
        width: factor on every layer's channels; 1 is the paper's network.
        in_channels: channels of the image.
        norm: "batch", or "group" for a network that must compute the same function in training and in evaluation
            (the agent: PPO compares log-probabilities of the two).

    Shape:
        (B, in_channels, H, W) with H, W ≥ 32 → (B, feature_dim). What five pools leave of a larger image is averaged.

    Raises:
        InputError: an unknown depth, a width that is not positive, or an image too small for five pools.
    """

    def __init__(
        self,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if depth not in STAGES:
            raise InputError(f"`depth` must be one of {sorted(STAGES)}. Found depth={depth}.")
        if not 0 < width < float("inf"):
            raise InputError(f"`width` must be positive. Found width={width}.")
        if norm not in ("batch", "group"):
            raise InputError(f"`norm` must be 'batch' or 'group'. Found norm={norm!r}.")
        self.depth = depth
        self.width = width
        self.in_channels = in_channels
        layers: list[nn.Module] = []
        channels = in_channels
        for convolutions, full_width in zip(STAGES[depth], WIDTHS, strict=True):
            out_channels = max(1, round(full_width * width))
            for _ in range(convolutions):
                layers += [
                    nn.Conv2d(channels, out_channels, 3, padding=1, bias=False),
                    nn.BatchNorm2d(out_channels)
                    if norm == "batch"
                    else nn.GroupNorm(gcd(32, max(1, out_channels // 8), out_channels), out_channels),
                    nn.ReLU(inplace=True),
                ]
                channels = out_channels
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.feature_dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, feature_dim) of images (B, C, H, W)."""
        if image.shape[1] != self.in_channels:
            raise InputError(
                f"`in_channels` must be the number of the images' channels. Found in_channels={self.in_channels} and "
                f"images of {image.shape[1]} channels."
            )
        if min(image.shape[-2:]) < 32:
            raise InputError(
                "VGG's five pools need images of at least 32 × 32 pixels. "
                f"Found {image.shape[-2]} × {image.shape[-1]}: enlarge them by `data.image_size: 32`."
            )
        features: Tensor = self.layers(image)
        return features


def own_trunk(owner: object, given: nn.Module | None, main: nn.Module, norm: Norm) -> tuple[nn.Module, int]:
    """The trunk of a labeler's own network and the size of its features.

    Args:
        owner: the labeler, for the message.
        given: the user's choice, with an attribute `feature_dim`; None for a VGG like the main network's.
        main: the main network's trunk.
        norm: of the VGG.

    Raises:
        InputError: no choice where the main trunk is no VGG, or a choice without `feature_dim`.
    """
    name = type(owner).__name__
    if given is None:
        if not isinstance(main, VGG):
            raise InputError(
                f"`trunk` of {name} must be given where the main network is no VGG. Found main trunk "
                f"{type(main).__name__} and no trunk: pass one, such as auxlight.VGG with `norm: {norm}`."
            )
        given = VGG(main.depth, main.width, main.in_channels, norm)
    feature_dim = getattr(given, "feature_dim", None)
    if not isinstance(feature_dim, int):
        kind = type(given).__name__
        raise InputError(f"`trunk` of {name} must say the size of its features in `feature_dim`. Found {kind} without.")
    return given, feature_dim
