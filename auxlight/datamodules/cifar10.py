"""CIFAR-10."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from auxlight.datamodules.mirrored import MirroredDataModule
from auxlight.hierarchy import LabelHierarchy


class CIFAR10DataModule(MirroredDataModule):
    """CIFAR-10: 10 primary classes, ψ auxiliary classes each, no human sub-labels.

    Mirror: `root/cifar10.npz` with train_images, train_labels, test_images, test_labels. Normalised with the RL-AUX
    authors' mean 0.5 and standard deviation 0.2. See `ImageDataModule` for the arguments not listed.

    Args:
        psi: auxiliary classes per primary class, one number or one per class.
    """

    dataset_name = "cifar10"

    def __init__(
        self,
        root: str | Path = "data",
        *,
        batch_size: int = 100,
        num_train: int | None = None,
        psi: int | Sequence[int] = 5,
        val_split: float = 0.1,
        download: bool = False,
        seed: int = 0,
        crop_padding: int = 4,
        flip: bool = True,
    ) -> None:
        super().__init__(
            LabelHierarchy.build(10, psi),
            root=root,
            batch_size=batch_size,
            num_train=num_train,
            val_split=val_split,
            download=download,
            seed=seed,
            crop_padding=crop_padding,
            flip=flip,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
        )

    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's CIFAR10."""
        return datasets.CIFAR10(self.root, train, download=download)

    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images and labels."""
        return dataset.data, np.asarray(dataset.targets)
