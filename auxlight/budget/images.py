"""Images with labels of several tasks, some of them unknown."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from auxlight.datamodules.cifar100_levels import level_labels
from auxlight.datamodules.digits import DigitsDataModule
from auxlight.datamodules.images import npz_keys, read_npz, to_image_tensor, to_label_tensor
from auxlight.errors import InputError
from auxlight.seeding import derive_seed, hash_integers

UNKNOWN = -1


@dataclass(frozen=True)
class TaskImages:
    """Images, and for each task a label or −1.

    Attributes:
        image: (N, 3, H, W) uint8.
        labels: by task, (N,) int64; −1 where nobody has bought it.
    """

    image: Tensor
    labels: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        for name, label in self.labels.items():
            if label.shape != (len(self.image),):
                raise InputError(
                    f"There must be one label per image. Found {tuple(label.shape)} of task {name!r} for "
                    f"{len(self.image)} images."
                )

    def __len__(self) -> int:
        return len(self.image)

    def select(self, index: Tensor) -> "TaskImages":
        """The images at these positions."""
        return TaskImages(self.image[index], {name: label[index] for name, label in self.labels.items()})

    def only(self, known: Mapping[str, Tensor]) -> "TaskImages":
        """The same images with the labels that are known at these positions, and no others.

        Args:
            known: by task, positions (n,); a task that is left out has no label.
        """
        labels = {}
        for name, label in self.labels.items():
            shown = torch.zeros(len(self), dtype=torch.bool)
            shown[known.get(name, torch.empty(0, dtype=torch.int64))] = True
            labels[name] = label.where(shown, UNKNOWN)
        return TaskImages(self.image, labels)


class TaskData(ABC):
    """Where a budget study has its images from.

    Attributes:
        classes: number of classes of each task.
        train: seed and pool: what can be labelled.
        test: what plans are judged by in the end; None where nothing is simulated.
    """

    classes: Mapping[str, int]
    train: TaskImages
    test: TaskImages | None

    @abstractmethod
    def load(self) -> None:
        """Fill the attributes; called once."""


class DigitTasks(TaskData):
    """Scikit-learn's 1,797 digits at 16 × 16, with labels that a digit implies, and one that means nothing.

    Tasks: digit (10 classes), parity, size (below 4, below 7, above), loops (none, one, two), and noise (2 classes
    drawn by chance for each image: nothing can be learned of it, and it helps nobody). The first 1,437 images are for
    seed and pool, the last 360 are the test set.
    """

    LOOPS = (1, 0, 0, 0, 0, 0, 1, 0, 2, 1)

    def load(self) -> None:
        """See `TaskData.load`."""
        source = DigitsDataModule()
        parts = []
        for train in (True, False):
            images = source.load_split(train)
            digit = torch.tensor([int(name) for name in source.auxiliary_names])[images.auxiliary]
            labels = {
                "digit": digit,
                "parity": digit % 2,
                "size": (digit >= 4).long() + (digit >= 7).long(),
                "loops": torch.tensor(self.LOOPS)[digit],
                "noise": hash_integers(torch.arange(len(digit)), derive_seed("noise", int(train))) % 2,
            }
            parts.append(TaskImages(images.image[:, :, ::2, ::2].contiguous(), labels))
        self.train, self.test = parts
        self.classes = {"digit": 10, "parity": 2, "size": 3, "loops": 3, "noise": 2}


class CIFAR100Levels(TaskData):
    """CIFAR-100 with MAXL's four levels as tasks: "100", "20", "10" and "3" classes; reads `root/cifar100.npz`.

    Args:
        root: folder of the mirror; see `CIFAR100SuperclassDataModule`.
        num_train: of the training images, the first so many; all by default.
    """

    def __init__(self, root: str | Path = "data", num_train: int | None = None) -> None:
        self.root = Path(root)
        self.num_train = num_train

    def load(self) -> None:
        """See `TaskData.load`."""
        path = self.root / "cifar100.npz"
        if not path.is_file():
            raise InputError(f"CIFAR100Levels reads a mirror. Found no {path}: put it there.")
        arrays = read_npz(path, ("train_images", "train_fine", "test_images", "test_fine"))
        parts = []
        for split, limit in (("train", self.num_train), ("test", None)):
            fine = torch.from_numpy(arrays[f"{split}_fine"].astype(np.int64))[:limit]
            labels = {str(level): level_labels(level)[fine] for level in (100, 20, 10, 3)}
            parts.append(TaskImages(to_image_tensor(arrays[f"{split}_images"][:limit], split), labels))
        self.train, self.test = parts
        self.classes = {"100": 100, "20": 20, "10": 10, "3": 3}


class NpzTasks(TaskData):
    """Your own arrays: `train_images` and, for each task, `train_<task>` with −1 where a label is still to be bought.

    Images whose labels of all tasks are known are the seed set. `test_images` and `test_<task>` are read if they are
    there.

    Args:
        path: of the .npz file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def load(self) -> None:
        """See `TaskData.load`."""
        if not self.path.is_file():
            raise InputError(f"`path` must be a .npz file. Found none at {self.path}.")
        keys = npz_keys(self.path)
        names = [key.removeprefix("train_") for key in keys if key.startswith("train_") and key != "train_images"]
        if not names:
            raise InputError(f"{self.path} must hold train_<task> for each task. Found {keys}.")
        parts: list[TaskImages | None] = []
        for split in ("train", "test"):
            wanted = [f"{split}_images", *(f"{split}_{name}" for name in names)]
            if split == "test" and not set(wanted) <= set(keys):
                parts.append(None)
                continue
            arrays = read_npz(self.path, tuple(wanted))
            labels = {name: to_label_tensor(arrays[f"{split}_{name}"], f"{split}_{name}") for name in names}
            parts.append(TaskImages(to_image_tensor(arrays[wanted[0]], wanted[0]), labels))
        train, self.test = parts
        assert train is not None
        self.train = train
        self.classes = {name: max(2, int(label.max()) + 1) for name, label in train.labels.items()}
