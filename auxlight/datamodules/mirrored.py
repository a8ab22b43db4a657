"""A public data set: an .npz mirror, torchvision's files, or torchvision's download, in this order."""

import contextlib
import sys
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock

from auxlight.datamodules.base import ImageDataModule
from auxlight.datamodules.images import ImageSet, read_npz, to_image_tensor, to_label_tensor
from auxlight.errors import InputError


class MirroredDataModule(ImageDataModule):
    """A data set that torchvision knows, or its mirror `root/{dataset_name}.npz` on a machine without network.

    The mirror holds train_images and test_images (N, H, W, 3) uint8, and one label array per split, (N,) of integers.

    Attributes:
        dataset_name: of the data set and its mirror.
        label_key: name of the label arrays, after "train_" and "test_".
    """

    dataset_name: ClassVar[str]
    label_key: ClassVar[str] = "labels"

    @abstractmethod
    def torchvision_dataset(self, train: bool, download: bool) -> Any:
        """Torchvision's data set of one official split."""

    @abstractmethod
    def arrays_of(self, dataset: Any) -> tuple[np.ndarray, np.ndarray]:
        """Images (N, H, W, 3) uint8 and labels (N,) of torchvision's data set."""

    @property
    def mirror(self) -> Path:
        """Where the mirror would lie."""
        return self.root / f"{self.dataset_name}.npz"

    def prepare_data(self) -> None:
        """Download, where asked to and no mirror is there; of processes that want the same files, one at a time.

        Raises:
            InputError: the download fails.
        """
        if not self.download or self.mirror.is_file():
            return
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / f".{self.dataset_name}.lock")  # torchvision writes where others read
            with lock, contextlib.redirect_stdout(sys.stderr):
                for train in (True, False):
                    self.torchvision_dataset(train, download=True)
        except Exception as error:  # whatever the network and the archives raise
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self.dataset_name} could not be downloaded ({reason}). Without a network, put {self.mirror} there."
            ) from error

    def load_split(self, train: bool) -> ImageSet:
        """Official split, in its official order.

        Raises:
            InputError: neither mirror nor files are there, or an array is missing or of another kind.
        """
        split = "train" if train else "test"
        images_key, labels_key = f"{split}_images", f"{split}_{self.label_key}"
        if self.mirror.is_file():
            arrays = read_npz(self.mirror, (images_key, labels_key))
            images, labels = arrays[images_key], arrays[labels_key]
        else:
            try:
                images, labels = self.arrays_of(self.torchvision_dataset(train, download=False))
            except Exception as error:  # torchvision raises RuntimeError, and whatever a damaged file causes
                raise InputError(
                    f"{self.dataset_name} is not in `root`: put {self.mirror} there (arrays train_images, "
                    f"train_{self.label_key}, test_images, test_{self.label_key}) or torchvision's files, or set "
                    f"`download: true`. Found root={str(self.root)!r}."
                ) from error
        return self.label(to_image_tensor(images, images_key), to_label_tensor(labels, labels_key))

    def label(self, image: Any, label: Any) -> ImageSet:
        """Primary and auxiliary labels from the data set's own labels."""
        return ImageSet(image, label)
