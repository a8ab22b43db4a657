"""The user's own images, in folders."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import torch

from auxlight.datamodules.base import ImageDataModule, ImageOptions
from auxlight.datamodules.folders import Filed, list_images, read_images
from auxlight.datamodules.images import ImageSet, to_image_tensor
from auxlight.datamodules.sampling import stratified_split
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy


class ImageFolderDataModule(ImageDataModule):
    """Images from `root/train/<primary>/<sub>/` and `root/test/<primary>/<sub>/`, or without the sub-classes.

    Folder names are class names, in alphabetical order; sub-classes are the human auxiliary labels, and classes may
    have different numbers of them. Any of torchvision's formats (.png, .jpg, .webp, …). All images are read into
    memory, as uint8. See `ImageDataModule` for the other arguments.

    Args:
        image_size: scale all images to this many pixels a side (bilinear; what is no square gets distorted); as they
            are by default, if all have one size.
        test_split: without `root/test`, the share of `root/train` that becomes the test set, stratified; the same
            images whatever `seed` is, so that no other seed has trained on them.
        psi: auxiliary classes per primary class, one number or one per class, where there are no sub-classes
            (default 5).

    Raises:
        InputError: folders that do not follow the rule, fewer than two classes, classes in the test set that the
            training set has not, no test set; in `setup`, images that cannot be read or differ in size.
    """

    def __init__(
        self,
        root: str | Path = "data",
        *,
        image_size: int | None = None,
        test_split: float | None = None,
        psi: int | Sequence[int] | None = None,
        flip: bool = True,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
        **options: Unpack[ImageOptions],
    ) -> None:
        if image_size is not None and image_size < 1:
            raise InputError(f"`image_size` must be positive. Found image_size={image_size}.")
        self.image_size = image_size
        train, test = Path(root) / "train", Path(root) / "test"
        if not train.is_dir():
            raise InputError(f"`root` must hold a folder train/<primary>/ of each class. Found no {train}.")
        if (Path(root) / "val").is_dir():
            warnings.warn(
                f"{Path(root) / 'val'} is not read: validation images are chosen from {train}, by `val_split`.",
                stacklevel=2,
            )
        found = list_images(train)
        self._class_names = sorted({filed.primary for filed in found})
        if len(self._class_names) < 2:
            raise InputError(
                f"There must be at least two primary classes. Found one in {train}: {self._class_names[0]}."
            )
        sub_classes = sorted({(filed.primary, filed.sub) for filed in found if filed.sub is not None})
        self._sub_classes = sub_classes
        owners = [self._class_names.index(primary) for primary, _ in sub_classes]
        if not sub_classes:
            hierarchy = LabelHierarchy.build(len(self._class_names), 5 if psi is None else psi)
        else:
            hierarchy, _ = LabelHierarchy.from_parents(owners)  # in order already
            if psi is not None and LabelHierarchy.build(len(self._class_names), psi) != hierarchy:
                raise InputError(f"`psi` must fit the sub-class folders ({list(hierarchy.psi)}). Found psi={psi}.")
        if test.is_dir():
            if test_split is not None:
                raise InputError(f"`test_split` is for a `root` without a test folder. Found {test} beside it.")
            held_out = self._known(list_images(test))
        elif test_split is None:
            raise InputError(
                f"There must be test images. Found no {test}: put some there, or set `test_split: 0.2` to hold out "
                "that share of the training images."
            )
        else:
            strata = torch.tensor([self._labels(filed)[-1] for filed in found])
            positions = stratified_split(strata, "test_split", test_split, seed=0)
            found, held_out = ([found[i] for i in part.tolist()] for part in positions)
        self._filed = {True: found, False: held_out}
        absent = sorted(set(self._class_names) - {filed.primary for filed in held_out})
        if absent:
            where = test if test_split is None else f"`test_split`={test_split}"
            warnings.warn(f"{where} leaves no test image of class {absent[0]!r}: its metrics will be 0.", stacklevel=2)
        super().__init__(hierarchy, root=root, flip=flip, mean=mean, std=std, **options)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes' folders."""
        return self._class_names

    @property
    def auxiliary_names(self) -> list[str]:
        """<primary>/<sub>, or numbers."""
        return [f"{primary}/{sub}" for primary, sub in self._sub_classes] or super().auxiliary_names

    def file_names(self, train: bool) -> list[str]:
        """Paths below `root`."""
        return [filed.file.relative_to(self.root).as_posix() for filed in self._filed[train]]

    def load_split(self, train: bool) -> ImageSet:
        """Read the files."""
        filed = self._filed[train]
        size = None if self.image_size is None else (self.image_size, self.image_size)
        images = read_images([one.file for one in filed], size)
        labels = torch.tensor([self._labels(one) for one in filed])
        auxiliary = labels[:, 1] if self._sub_classes else None
        return ImageSet(to_image_tensor(images, str(self.root)), labels[:, 0], auxiliary)

    def _labels(self, filed: Filed) -> list[int]:
        """Primary class and, where there are sub-classes, auxiliary class."""
        primary = [self._class_names.index(filed.primary)]
        return primary if filed.sub is None else [*primary, self._sub_classes.index((filed.primary, filed.sub))]

    def _known(self, test: list[Filed]) -> list[Filed]:
        """The test images, if the training set has their classes."""
        for filed in test:
            if filed.primary not in self._class_names or (filed.sub is None) == bool(self._sub_classes):
                raise InputError(
                    "Each class in test/ must be one of train/, with or without sub-classes as there. "
                    f"Found {filed.file}."
                )
            if filed.sub is not None and (filed.primary, filed.sub) not in self._sub_classes:
                raise InputError(f"Each sub-class in test/ must be one of train/. Found {filed.file}.")
        return test
