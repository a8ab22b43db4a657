"""Scikit-learn's real handwritten digits: no network, no files."""

from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch.nn import functional as F

from auxlight.datamodules.base import ImageDataModule, ImageOptions
from auxlight.datamodules.images import ImageSet, to_image_tensor
from auxlight.hierarchy import LabelHierarchy


class DigitsDataModule(ImageDataModule):
    """1,797 handwritten digits (UCI ML, shipped with scikit-learn), enlarged from 8 × 8 to 32 × 32.

    Primary task: even or odd. The digit itself is the human sub-label, so ψ = 5. The first 1,437 images are for
    training and validation; the last 360 are the test set. See `ImageDataModule` for the arguments.

    `root` and `download` are accepted, so that one command line fits every data set; nothing is read from there.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        flip: bool = False,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(
            LabelHierarchy.build(2, 5),
            root=root,
            flip=flip,
            mean=(0.305, 0.305, 0.305),
            std=(0.323, 0.323, 0.323),
            **options,
        )

    @property
    def class_names(self) -> list[str]:
        """Even and odd."""
        return ["even", "odd"]

    @property
    def auxiliary_names(self) -> list[str]:
        """The digits, the even ones first."""
        return list("0246813579")

    def load_split(self, train: bool) -> ImageSet:
        """The first 1,437 or the last 360 images."""
        from sklearn.datasets import load_digits  # slow to import, and only needed here

        digits = load_digits()
        part = slice(1437) if train else slice(1437, None)
        # Grey levels 0 … 16, enlarged bilinearly.
        grey = torch.from_numpy(digits.images[part])[:, None] * (255 / 16)
        image = F.interpolate(grey, size=(32, 32), mode="bilinear", align_corners=False)
        digit = torch.from_numpy(digits.target[part]).long()
        even_first = torch.tensor([d // 2 + 5 * (d % 2) for d in range(10)])
        return ImageSet(
            to_image_tensor(image[:, 0].round().numpy().astype(np.uint8), "digits"), digit % 2, even_first[digit]
        )
