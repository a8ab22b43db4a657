"""Two digits in one image, each a task of its own."""

from pathlib import Path
from typing import Any, Unpack, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import datasets

from auxlight.datamodules.base import BasicOptions, ImageDataModule
from auxlight.datamodules.digits import DigitsDataModule
from auxlight.datamodules.images import ImageSet
from auxlight.datamodules.mirrored import MirroredDataModule
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.seeding import derive_seed

DIGITS = 10


def overlaid_pairs(image: Tensor, digit: Tensor, image_size: int | None = None) -> ImageSet:
    """Each image with another one shifted down and to the right by two sevenths of a side.

    Args:
        image: (N, C, H, W) uint8, bright on dark.
        digit: (N,) int64.
        image_size: side of the pairs; by default each image's own.

    Returns:
        N pairs; the primary class is the upper left digit, the sub-label's place in the block the lower right one.
    """
    partner = torch.randperm(len(image), generator=torch.Generator().manual_seed(derive_seed("pairs", len(image))))
    size = image.shape[-2:]
    goal = size if image_size is None else (image_size, image_size)
    shift = [round(side * 2 / 7) for side in size]
    room = (0, shift[1], 0, shift[0])
    both = torch.maximum(F.pad(image, room), F.pad(image[partner], (shift[1], 0, shift[0], 0)))
    small = [  # in parts: as floats all of MNIST would take some gigabytes
        F.interpolate(part.float(), size=goal, mode="bilinear", antialias=True).round().to(torch.uint8)
        for part in torch.split(both, 4096)
    ]
    return ImageSet(torch.cat(small), digit, DIGITS * digit + digit[partner])


class PairedDigits(ImageDataModule):
    """Digits that are paired inside each split, so that no held-out digit lies in a training image.

    A subclass gives the single digits by `load_split`.

    Attributes:
        image_size: side of the pairs; None for the digits' own.
    """

    image_size: int | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load the digits, choose the splits, and pair the digits of each."""
        if self._splits:
            return
        super().setup(stage)
        paired: dict[int, ImageSet] = {}  # the training digits are those of several splits
        for dataset in self._splits.values():
            digits, own = dataset.images, dataset.subset
            if not len(own):
                continue
            pairs = overlaid_pairs(digits.image[own], digits.primary[own], self.image_size)
            if id(digits) not in paired:
                image = digits.image.new_zeros(len(digits), *pairs.image.shape[1:])
                paired[id(digits)] = ImageSet(image, digits.primary, torch.zeros_like(digits.primary))
            dataset.images = paired[id(digits)]
            dataset.images.image[own] = pairs.image
            cast(Tensor, dataset.images.auxiliary)[own] = cast(Tensor, pairs.auxiliary)


class MultiMNISTDataModule(PairedDigits, MirroredDataModule):
    """Multi-MNIST (Sabour et al., 2017; Sener & Koltun, 2018): each MNIST digit with another one laid over it.

    Primary task: the upper left digit. `PlaceTask` is the lower right one; `HumanLabels` are the 100 pairs. Digits
    are paired inside each split. Mirror: `root/mnist.npz` with train_images (60000, 28, 28), train_labels, test_images,
    test_labels. No augmentation. See `ImageDataModule` for the other arguments.

    Args:
        image_size: side of the pairs; the papers' 28. VGG needs 32.
    """

    dataset_name = "mnist"

    def __init__(
        self,
        root: str | Path = "data",
        *,
        image_size: int = 28,
        flip: bool = False,
        crop_padding: int = 0,
        **options: Unpack[BasicOptions],
    ) -> None:
        if image_size < 1:
            raise InputError(f"`image_size` must be positive. Found image_size={image_size}.")
        self.image_size = image_size
        super().__init__(
            LabelHierarchy.build(DIGITS, DIGITS),
            root=root,
            flip=flip,
            crop_padding=crop_padding,
            mean=(0.1307, 0.1307, 0.1307),
            std=(0.3081, 0.3081, 0.3081),
            **options,
        )

    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's MNIST."""
        return datasets.MNIST(self.root, train, download=download)

    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        return dataset.data.numpy(), dataset.targets.numpy()


class MultiDigitsDataModule(PairedDigits):
    """The same of scikit-learn's 1,797 digits, at 32 × 32: no network, no files.

    `root` and `download` are accepted, so that one command line fits every data set; nothing is read from there.
    """

    def __init__(
        self, root: str | Path = "data", *, flip: bool = False, crop_padding: int = 0, **options: Unpack[BasicOptions]
    ) -> None:
        super().__init__(
            LabelHierarchy.build(DIGITS, DIGITS),
            root=root,
            flip=flip,
            crop_padding=crop_padding,
            mean=(0.305, 0.305, 0.305),
            std=(0.323, 0.323, 0.323),
            **options,
        )

    def load_split(self, train: bool) -> ImageSet:
        """The first 1,437 or the last 360 digits."""
        digits = DigitsDataModule().load_split(train)
        block = cast(Tensor, digits.auxiliary)
        return ImageSet(digits.image, block % 5 * 2 + block // 5)  # even digits come first there
