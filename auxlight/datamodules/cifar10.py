"""CIFAR-10."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from torchvision import datasets

from auxlight.datamodules.base import ImageOptions
from auxlight.datamodules.mirrored import MirroredDataModule
from auxlight.hierarchy import LabelHierarchy


class CIFAR10DataModule(MirroredDataModule):
    """CIFAR-10: 10 primary classes, ψ auxiliary classes each, no human sub-labels.

    Mirror: `root/cifar10.npz` with train_images, train_labels, test_images, test_labels. Normalised with the RL-AUX
    authors' mean 0.5 and standard deviation 0.2. See `ImageDataModule` for the other arguments.

    Args:
        psi: auxiliary classes per primary class, one number or one per class.
    """

    dataset_name = "cifar10"

    def __init__(
        self,
        root: str | Path = "data",
        *,
        psi: int | Sequence[int] = 5,
        flip: bool = True,
        **options: Unpack[ImageOptions],
    ) -> None:
        super().__init__(
            LabelHierarchy.build(10, psi),
            root=root,
            flip=flip,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            **options,
        )

    @property
    def class_names(self) -> list[str]:
        """Of the ten classes."""
        return ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's CIFAR10."""
        return datasets.CIFAR10(self.root, train, download=download)

    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        return dataset.data, np.asarray(dataset.targets)
