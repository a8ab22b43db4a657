"""Street View House Numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torchvision import datasets

from auxlight.datamodules.base import ImageOptions
from auxlight.datamodules.mirrored import MirroredDataModule
from auxlight.hierarchy import LabelHierarchy


class SVHNDataModule(MirroredDataModule):
    """SVHN, cropped digits: 10 primary classes, ψ auxiliary classes each, no human sub-labels.

    The images are never mirrored: a mirrored digit is another digit, or none. Mirror of the data: `root/svhn.npz`
    with train_images (73257, 32, 32, 3), train_labels, test_images, test_labels. See `ImageDataModule` for the
    other arguments.

    Args:
        psi: auxiliary classes per primary class, one number or one per class.
    """

    dataset_name = "svhn"

    def __init__(
        self,
        root: str | Path = "data",
        *,
        psi: int | Sequence[int] = 5,
        flip: bool = False,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(
            LabelHierarchy.build(10, psi),
            root=root,
            flip=flip,
            mean=(0.4377, 0.4438, 0.4728),
            std=(0.198, 0.201, 0.197),
            **options,
        )

    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's SVHN (its .mat files are read by scipy)."""
        return datasets.SVHN(str(self.root), "train" if train else "test", download=download)

    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images, channels last, and labels."""
        return dataset.data.transpose(0, 2, 3, 1), np.asarray(dataset.labels)
