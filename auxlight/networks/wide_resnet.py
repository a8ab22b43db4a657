"""Wide residual network, ending in one feature vector."""

from itertools import pairwise

from torch import Tensor, nn

from auxlight.errors import InputError


class WideResNet(nn.Module):
    """WRN-28-2 and its kin (Zagoruyko & Komodakis, 2016), as the studies of semi-supervised learning use it.

    Pre-activation blocks in three stages of 16k, 32k and 64k channels. As Oliver et al. (2018) and ARML have it: leaky
    ReLU of slope 0.1, and batch norm's statistics averaged with a share of 0.001 per step.

    Args:
        depth: 6n + 4: 10, 16, 22, 28, 40, ….
        widen: k; 2 in WRN-28-2.
        width: a further factor on every layer's channels; 1 is the paper's network.
        in_channels: channels of the image.
        norm_momentum: share of a batch in batch norm's statistics. Short runs need more than 0.001: their statistics
            are still those of the start otherwise.

    Shape:
        (B, in_channels, H, W) → (B, feature_dim).

    Raises:
        InputError: a depth that is not 6n + 4, or factors that are not positive.
    """

    def __init__(
        self,
        depth: int = 28,
        widen: int = 2,
        width: float = 1.0,
        in_channels: int = 3,
        norm_momentum: float = 1e-3,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise InputError(f"`depth` must be 10, 16, 22, 28 or another 6n + 4. Found depth={depth}.")
        if widen < 1 or not 0 < width < float("inf") or not 0 < norm_momentum <= 1:
            raise InputError(
                "`widen` must be at least 1, `width` positive, and `norm_momentum` in (0, 1]. "
                f"Found widen={widen}, width={width}, norm_momentum={norm_momentum}."
            )
        self.in_channels = in_channels
        channels = [max(1, round(base * width)) for base in (16, 16 * widen, 32 * widen, 64 * widen)]
        layers: list[nn.Module] = [nn.Conv2d(in_channels, channels[0], 3, padding=1, bias=False)]
        for stage, (before, after) in enumerate(pairwise(channels)):
            for block in range((depth - 4) // 6):
                first = block == 0
                layers.append(
                    _Block(before if first else after, after, 2 if first and stage else 1, stage == 0 and first)
                )
        self.layers = nn.Sequential(
            *layers, nn.BatchNorm2d(channels[-1]), _activation(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.feature_dim = channels[-1]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.BatchNorm2d):
                module.momentum = norm_momentum

    def forward(self, image: Tensor) -> Tensor:
        """Features (B, feature_dim) of images (B, C, H, W)."""
        if image.shape[1] != self.in_channels:
            raise InputError(
                f"`in_channels` must be the number of the images' channels. Found in_channels={self.in_channels} and "
                f"images of {image.shape[1]} channels."
            )
        features: Tensor = self.layers(image)
        return features


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.1)


class _Block(nn.Module):
    """Norm, activation, convolution, twice; where `shared_start`, the short cut goes from behind the first two."""

    def __init__(self, before: int, after: int, stride: int, shared_start: bool) -> None:
        super().__init__()
        self.shared_start = shared_start
        self.start = nn.Sequential(nn.BatchNorm2d(before), _activation())
        same = before == after and stride == 1
        self.short_cut = nn.Identity() if same else nn.Conv2d(before, after, 1, stride, bias=False)
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            _activation(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        started: Tensor = self.start(x)
        output: Tensor = self.short_cut(started if self.shared_start else x) + self.body(started)
        return output
