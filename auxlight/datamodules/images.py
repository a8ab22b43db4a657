"""A split of images and labels held in memory, and its checks."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one official split (training or test).

    Attributes:
        image: (N, C, H, W) uint8.
        primary: (N,) int64, in [0, C).
        auxiliary: (N,) int64 human sub-label in block order, in [0, K), or None.
        strata: (N,) int64, the finest classes there are, which all splits hold alike: by default the auxiliary ones, or
            else the primary ones. What a run exposes of them as labels is then no matter of its splits.
    """

    image: Tensor
    primary: Tensor
    auxiliary: Tensor | None = None
    strata: Tensor | None = None

    def __len__(self) -> int:
        return len(self.image)

    def finest(self) -> Tensor:
        """(N,) the classes that splits are stratified by."""
        return next(labels for labels in (self.strata, self.auxiliary, self.primary) if labels is not None)

    def check(self, hierarchy: LabelHierarchy, name: str) -> "ImageSet":
        """This set, if its labels fit its images and the hierarchy.

        Raises:
            InputError: labels of another length, out of range, or outside their primary class's block.
        """
        if not len(self):
            raise InputError(f"There must be {name} images. Found none.")
        _check_labels(self.primary, len(self), hierarchy.num_primary, f"{name} primary labels")
        if self.auxiliary is not None:
            _check_labels(self.auxiliary, len(self), hierarchy.num_auxiliary, f"{name} auxiliary labels")
            stray = hierarchy.parents[self.auxiliary] != self.primary
            if stray.any():
                i = int(stray.nonzero()[0])
                raise InputError(
                    f"Each auxiliary label must lie in the block of its primary class. Found auxiliary label "
                    f"{int(self.auxiliary[i])} with primary class {int(self.primary[i])} at {name} image {i}."
                )
        return self


def _check_labels(labels: Tensor, length: int, classes: int, name: str) -> None:
    if len(labels) != length:
        raise InputError(f"There must be one label per image. Found {len(labels)} {name} for {length} images.")
    check_range(labels, classes, name)


def check_range(labels: Tensor, classes: int | None, name: str) -> None:
    """Refuse labels below 0 or, where the number of classes is known, above the last class.

    Raises:
        InputError: a label out of range.
    """
    if len(labels) and (int(labels.min()) < 0 or (classes is not None and int(labels.max()) >= classes)):
        last = "…" if classes is None else f"… {classes - 1}"
        raise InputError(f"The {name} must lie in 0 {last}. Found {int(labels.min())} … {int(labels.max())}.")


def to_image_tensor(array: np.ndarray, name: str) -> Tensor:
    """(N, 3, H, W) uint8 from an array (N, H, W, 3), (N, H, W, 1) or (N, H, W); grey becomes three equal channels.

    Raises:
        InputError: another dtype or shape.
    """
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or (array.ndim == 4 and array.shape[-1] not in (1, 3)):
        raise InputError(
            f"`{name}` must hold uint8 images of shape (N, H, W), (N, H, W, 1) or (N, H, W, 3). "
            f"Found {array.dtype} of shape {array.shape}."
        )
    if array.ndim == 3:
        array = array[..., None]
    image = torch.from_numpy(np.ascontiguousarray(array)).permute(0, 3, 1, 2)
    return image.expand(-1, 3, -1, -1).contiguous()


def to_label_tensor(array: np.ndarray, name: str) -> Tensor:
    """(N,) int64.

    Raises:
        InputError: an array of another shape, or not of integers.
    """
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"`{name}` must be one integer per image. Found {array.dtype} of shape {array.shape}.")
    return torch.from_numpy(array.astype(np.int64))


def npz_keys(path: Path) -> list[str]:
    """Names of the arrays in an .npz file.

    Raises:
        InputError: a file that is no .npz.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return sorted(archive.files)
    except Exception as error:  # zipfile, zlib, struct, OSError, AttributeError: numpy documents no common class
        raise InputError(f"{path} must be a .npz file. It cannot be opened: {_one_line(error)}.") from error


def read_npz(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays `keys` of an .npz file; nothing is unpickled.

    Raises:
        InputError: a file that is no .npz, a missing key, or an array that cannot be read (the key is named).
    """
    present = npz_keys(path)
    missing = [key for key in keys if key not in present]
    if missing:
        raise InputError(f"{path} must hold the array `{missing[0]}`. Found {present}.")
    arrays = {}
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        for key in keys:
            try:
                arrays[key] = archive[key]
            except Exception as error:
                raise InputError(f"{path}: the array `{key}` cannot be read: {_one_line(error)}.") from error
            if not isinstance(arrays[key], np.ndarray):
                raise InputError(f"{path}: `{key}` must be an array. Found {type(arrays[key]).__name__}.")
    return arrays


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


class Draw(NamedTuple):
    """Which images make a batch, and the seed of their augmentation (None: none)."""

    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for
    seed: int | None


class RawBatch(NamedTuple):
    """A batch as it leaves memory: uint8 images (B, C, H, W), labels, positions, seed of its augmentation."""

    image: Tensor
    primary: Tensor
    auxiliary: Tensor | None
    index: Tensor  # type: ignore[assignment]  # hides tuple.index, which a batch has no use for
    seed: int | None


class BatchDataset(Dataset[RawBatch]):
    """Whole batches out of an `ImageSet`, restricted to the positions in `subset`."""

    def __init__(self, images: ImageSet, subset: Tensor) -> None:
        self.images = images
        self.subset = subset

    def __len__(self) -> int:
        return len(self.subset)

    def __getitem__(self, draw: Draw) -> RawBatch:
        index = self.subset[draw.index]
        auxiliary = self.images.auxiliary
        return RawBatch(
            self.images.image[index],
            self.images.primary[index],
            None if auxiliary is None else auxiliary[index],
            index,
            draw.seed,
        )
