"""CIFAR-100 with superclasses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torchvision import datasets

from auxlight.datamodules.base import ImageOptions
from auxlight.datamodules.cifar100_levels import FINE_CLASSES, SUPERCLASSES, Level, level_labels
from auxlight.datamodules.images import ImageSet
from auxlight.datamodules.mirrored import MirroredDataModule
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy


class CIFAR100SuperclassDataModule(MirroredDataModule):
    """CIFAR-100: a coarse level is the primary task, a finer one the human sub-labels.

    By default the paper's: 20 superclasses, ψ = 5, the 100 fine classes as human sub-labels. MAXL's levels of 3, 10,
    20 and 100 classes are choices for either; their blocks are of unequal size. Mirror: `root/cifar100.npz` with
    train_images, train_fine, test_images, test_fine. See `ImageDataModule` for the other arguments.

    Args:
        primary_level: number of primary classes: 3, 10, 20 or 100.
        auxiliary_level: number of human auxiliary classes, finer than the primary ones; None for none.
        psi: auxiliary classes per primary class, one number or one per class, where `auxiliary_level` is None.

    Raises:
        InputError: an auxiliary level not finer than the primary one, or `psi` that contradicts the human labels.
    """

    dataset_name = "cifar100"
    label_key = "fine"

    def __init__(
        self,
        root: str | Path = "data",
        *,
        primary_level: Level = 20,
        auxiliary_level: Level | None = 100,
        psi: int | Sequence[int] | None = None,
        flip: bool = True,
        **options: Unpack[ImageOptions],
    ) -> None:
        hierarchy, self.fine_to_auxiliary = _hierarchy(primary_level, auxiliary_level, psi)
        self.fine_to_primary = level_labels(primary_level)
        _, stratum = _hierarchy(primary_level, 100, None) if primary_level < 100 else (None, None)
        self.fine_to_stratum = torch.arange(100) if stratum is None else stratum
        self.primary_level: Level = primary_level
        self.auxiliary_level = auxiliary_level
        super().__init__(
            hierarchy,
            root=root,
            flip=flip,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
            **options,
        )

    @property
    def class_names(self) -> list[str]:
        """Of the superclasses or the fine classes; MAXL's 3 and 10 have numbers."""
        return _names(self.primary_level, self.fine_to_primary)

    @property
    def auxiliary_names(self) -> list[str]:
        """The same of the sub-classes."""
        if self.auxiliary_level is None or self.fine_to_auxiliary is None:
            return super().auxiliary_names
        return _names(self.auxiliary_level, self.fine_to_auxiliary)

    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's CIFAR100."""
        return datasets.CIFAR100(self.root, train, download=download)

    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images and fine labels."""
        return dataset.data, np.asarray(dataset.targets)

    def label(self, image: Tensor, label: Tensor) -> ImageSet:
        """Primary and auxiliary classes of the fine labels."""
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < 100:
            raise InputError(
                f"CIFAR-100's fine labels must lie in 0 … 99. Found {int(label.min())} … {int(label.max())}."
            )
        auxiliary = None if self.fine_to_auxiliary is None else self.fine_to_auxiliary[label]
        return ImageSet(image, self.fine_to_primary[label], auxiliary, self.fine_to_stratum[label])


def _names(level: Level, classes: Tensor) -> list[str]:
    """Of the classes of a level, given the class of each fine one."""
    superclass = list(SUPERCLASSES)
    names = [str(number) for number in range(level)]
    for fine, (own, parent) in enumerate(zip(classes.tolist(), level_labels(20).tolist(), strict=True)):
        if level >= 20:
            names[own] = FINE_CLASSES[fine] if level == 100 else superclass[parent]
    return names


def _hierarchy(
    primary_level: Level, auxiliary_level: Level | None, psi: int | Sequence[int] | None
) -> tuple[LabelHierarchy, Tensor | None]:
    """The hierarchy, and the auxiliary class of each fine class (None without human labels)."""
    if primary_level not in (3, 10, 20, 100):
        raise InputError(f"`primary_level` must be 3, 10, 20 or 100. Found primary_level={primary_level}.")
    if auxiliary_level is None:
        return LabelHierarchy.build(primary_level, 5 if psi is None else psi), None
    if auxiliary_level not in (10, 20, 100) or auxiliary_level <= primary_level:
        raise InputError(
            "`auxiliary_level` must be 10, 20 or 100 and finer than `primary_level`, or null. "
            f"Found auxiliary_level={auxiliary_level} with primary_level={primary_level}."
        )
    primary, auxiliary = level_labels(primary_level), level_labels(auxiliary_level)
    parents = torch.zeros(auxiliary_level, dtype=torch.int64)
    parents[auxiliary] = primary
    hierarchy, block_order = LabelHierarchy.from_parents(parents.tolist())
    if psi is not None and LabelHierarchy.build(primary_level, psi) != hierarchy:
        raise InputError(
            f"`psi` must fit the human sub-labels ({list(hierarchy.psi)}), or `auxiliary_level` be null. "
            f"Found psi={psi}."
        )
    return hierarchy, block_order[auxiliary]
