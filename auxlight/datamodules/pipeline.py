"""Augmentation and normalisation of whole batches on the device."""

from collections.abc import Sequence

import torch
from torch import Tensor

from auxlight.batch import Batch
from auxlight.datamodules.images import RawBatch


def random_crop(image: Tensor, padding: int, offset: Tensor) -> Tensor:
    """Pad each image with zeros and cut a window of its own size, at an offset of its own.

    Args:
        image: (B, C, H, W).
        padding: pixels on each side.
        offset: (B, 2) int64, top and left of each window, in [0, 2·padding].
    """
    height, width = image.shape[-2:]
    padded = torch.nn.functional.pad(image, (padding,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view, (B, C, 2p + 1, 2p + 1, H, W)
    return windows[torch.arange(len(image), device=image.device), :, offset[:, 0], offset[:, 1]]


def random_flip(image: Tensor, flip: Tensor) -> Tensor:
    """Mirror left to right those images (B, C, H, W) for which flip (B,) bool is True."""
    return torch.where(flip[:, None, None, None], image.flip(-1), image)


class ImagePipeline:
    """uint8 batches → float batches: random crop, random flip (training only), then (x / 255 − mean) / std.

    Every image has a draw of its own, made on the CPU from the batch's seed: the same on every device.

    Args:
        mean: per channel, on the scale [0, 1].
        std: per channel, on the same scale.
        crop_padding: pixels of the random crop; 0 for none.
        flip: mirror half of the images.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], crop_padding: int, flip: bool) -> None:
        self.mean = torch.tensor(mean)
        self.std = torch.tensor(std)
        self.crop_padding = crop_padding
        self.flip = flip

    def __call__(self, raw: RawBatch) -> Batch:
        """The batch that a network sees, on the device of `raw`."""
        image = raw.image
        if raw.seed is not None:
            generator = torch.Generator().manual_seed(raw.seed)
            offset = torch.randint(2 * self.crop_padding + 1, (len(image), 2), generator=generator)
            flip = torch.rand(len(image), generator=generator) < 0.5
            if self.crop_padding:
                image = random_crop(image, self.crop_padding, offset.to(image.device, non_blocking=True))
            if self.flip:
                image = random_flip(image, flip.to(image.device, non_blocking=True))
        scale = (1 / (255 * self.std)).to(image.device)[:, None, None]
        shift = (self.mean / self.std).to(image.device)[:, None, None]
        # Convolutions are faster on this layout, on CPU and GPU alike.
        normalised = (image.float() * scale - shift).contiguous(memory_format=torch.channels_last)
        return Batch(normalised, raw.primary, raw.auxiliary, raw.index)
