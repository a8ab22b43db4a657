"""The data module that all data sets share."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from auxlight.batch import Batch
from auxlight.datamodules.folders import find_images, read_images
from auxlight.datamodules.images import BatchDataset, Draw, ImageSet, RawBatch, to_image_tensor
from auxlight.datamodules.pipeline import ImagePipeline
from auxlight.datamodules.sampling import BatchSampler, balanced_subset, stratified_split
from auxlight.datamodules.semi_supervised import PartlyLabelledDataset, PartlyLabelledSampler
from auxlight.distributed import holds_whole_parameters
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hparams import save_plain_hyperparameters
from auxlight.option_docs import share_docs
from auxlight.seeding import derive_seed, global_seed

Split = Literal["train", "meta", "val", "test", "predict"]


class BasicOptions(TypedDict, total=False):
    """What every data module takes beside its own arguments; `ImageDataModule` says what each means."""

    batch_size: int
    num_train: int | None
    num_labelled: int | None
    labelled_share: float
    val_split: float
    meta_split: float
    predict_root: str | Path | None
    download: bool
    seed: int


class ImageOptions(BasicOptions, total=False):
    """The same, for a data module without a default of its own for the random crop."""

    crop_padding: int


class ImageDataModule(L.LightningDataModule):
    """Images in memory as uint8; batches augmented and normalised on the device.

    A subclass says where the images come from (`load_split`) and which hierarchy its labels follow.

    `seed` chooses the images of the validation split and of `num_train`; the order and the augmentation follow
    ``seed_everything``, so that runs of several seeds share their splits.

    Args:
        hierarchy: primary classes and their auxiliary blocks.
        root: folder of the data.
        batch_size: images per batch and device.
        num_train: a balanced subset of the training images, for low-data studies; all by default.
        num_labelled: semi-supervised: of the chosen training images, how many keep their labels (a balanced subset);
            of the others the primary class is −1, and only tasks that need no label learn from them. All by default.
        labelled_share: of each training batch, the share of labelled images, where there are others as well.
        val_split: share of the training images held out for validation, stratified.
        meta_split: share of the chosen training images on which no network trains, stratified: those by which a
            bi-level method judges its labels (AuxiLearn's auxiliary set). None by default.
        predict_root: folder of further images, without labels, which `auxlight predict` reads instead of the test
            images; they are scaled to the others' size. Folders in it say nothing.
        download: fetch the data set where it is missing.
        seed: of the validation split and of the subset.
        crop_padding: padding of the random crop in pixels, 0 for none.
        flip: mirror half of the training images.
        mean: of each channel, on the scale [0, 1].
        std: of each channel.

    Raises:
        InputError: at once for a batch size or padding out of range, in `setup` for what depends on the data.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy,
        *,
        root: str | Path = "data",
        batch_size: int = 100,
        num_train: int | None = None,
        num_labelled: int | None = None,
        labelled_share: float = 0.5,
        val_split: float = 0.1,
        meta_split: float = 0.0,
        predict_root: str | Path | None = None,
        download: bool = False,
        seed: int = 0,
        crop_padding: int = 4,
        flip: bool = True,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        if batch_size < 1:
            raise InputError(f"`batch_size` must be at least 1. Found batch_size={batch_size}.")
        if crop_padding < 0:
            raise InputError(f"`crop_padding` must be at least 0. Found crop_padding={crop_padding}.")
        if seed < 0:
            raise InputError(f"`seed` must be at least 0. Found seed={seed}.")
        for name, values in (("mean", mean), ("std", std)):
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                rule = "three finite numbers, one per channel" + (", each above 0" if name == "std" else "")
                raise InputError(f"`{name}` must be {rule}. Found {name}={list(values)}.")
        if not 0 <= meta_split < 1:
            raise InputError(f"`meta_split` must lie between 0 (none) and 1. Found meta_split={meta_split}.")
        if not 0 < labelled_share < 1:
            raise InputError(f"`labelled_share` must lie above 0 and below 1. Found labelled_share={labelled_share}.")
        self.hierarchy = hierarchy
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_train = num_train
        self.num_labelled = num_labelled
        self.labelled_share = labelled_share
        self.val_split = val_split
        self.meta_split = meta_split
        self.predict_root = None if predict_root is None else Path(predict_root)
        self.download = download
        self.seed = seed
        self.pipeline = ImagePipeline(mean, std, crop_padding, flip)
        self._splits: dict[Split, BatchDataset] = {}

    @abstractmethod
    def load_split(self, train: bool) -> ImageSet:
        """The official training or test images, in their official order."""

    def setup(self, stage: str | None = None) -> None:
        """Load the images and choose the splits; once per process."""
        if self._splits:
            return
        train = self.load_split(train=True).check(self.hierarchy, "training")
        test = self.load_split(train=False).check(self.hierarchy, "test")
        strata, exposed = train.finest(), train.primary if train.auxiliary is None else train.auxiliary

        def subset(size: int, name: str) -> Tensor:
            """Of the chosen images, balanced as finely as so few can be."""
            by = strata if size >= int((strata.bincount() > 0).sum()) else exposed
            return balanced_subset(by[chosen], size, self.seed, name)

        chosen, val = stratified_split(strata, "val_split", self.val_split, self.seed)
        if self.num_train is not None:
            chosen = chosen[subset(self.num_train, "num_train")]
        meta = hidden = chosen[:0]
        if self.num_labelled is not None:
            known = subset(self.num_labelled, "num_labelled")
            unknown = torch.ones(len(chosen), dtype=torch.bool).index_fill_(0, known, False)
            chosen, hidden = chosen[known], chosen[unknown]
        if self.meta_split:
            rest, held_out = stratified_split(strata[chosen], "meta_split", self.meta_split, self.seed)
            chosen, meta = chosen[rest], chosen[held_out]
        if self.batch_size > len(chosen) + len(hidden):
            raise InputError(
                f"`batch_size` must not exceed the {len(chosen) + len(hidden)} training images. "
                f"Found batch_size={self.batch_size}."
            )
        self._splits = {
            "train": PartlyLabelledDataset(train, chosen, hidden) if len(hidden) else BatchDataset(train, chosen),
            "meta": BatchDataset(train, meta),
            "val": BatchDataset(train, val),
            "test": BatchDataset(test, torch.arange(len(test))),
        }

    @cached_property
    def _further_files(self) -> list[Path]:
        return find_images(cast(Path, self.predict_root))

    def _dataset(self, split: Split) -> BatchDataset:
        """Of a split, read where it has not been."""
        self.setup()
        if split == "predict" and "predict" not in self._splits:
            self._splits["predict"] = self._splits["test"]
            if self.predict_root is not None:
                height, width = self.image_shape[1:]
                pixels = read_images(self._further_files, (height, width))
                further = ImageSet(to_image_tensor(pixels, "predict_root"), torch.full((len(pixels),), -1))
                self._splits["predict"] = BatchDataset(further, torch.arange(len(further)))
        return self._splits[split]

    @property
    def has_sub_labels(self) -> bool:
        """Whether there are human sub-labels, from `setup` on."""
        return self._splits["train"].images.auxiliary is not None

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, H, W) of the images, from `setup` on."""
        return tuple(self._splits["train"].images.image.shape[1:])

    @property
    def class_names(self) -> list[str]:
        """(C) names of the primary classes; their numbers where nobody named them."""
        return [str(y) for y in range(self.hierarchy.num_primary)]

    @property
    def auxiliary_names(self) -> list[str]:
        """(K) names of the human sub-labels; their numbers where nobody named them."""
        return [str(k) for k in range(self.hierarchy.num_auxiliary)]

    def file_names(self, train: bool) -> list[str] | None:
        """Of each official training or test image, where they come from files."""
        return None

    def predicted_file_names(self) -> list[str] | None:
        """Of each image of `predict_dataloader`, where they come from files: below `predict_root`, or `file_names`."""
        if self.predict_root is None:
            return self.file_names(train=False)
        return [file.relative_to(self.predict_root).as_posix() for file in self._further_files]

    def split_size(self, split: Split) -> int:
        """Number of images of a split; of the training split those whose labels are hidden count, too."""
        return len(self._dataset(split))

    def sample(self, split: Split, size: int, seed: int) -> RawBatch:
        """The same images of a split each time, at most `size`, in order and as they are.

        Args:
            split: "train", "meta", "val", "test", or "predict": below `predict_root`.
            size: how many; all where there are fewer.
            seed: of the choice.
        """
        dataset = self._dataset(split)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(derive_seed("sample", seed)))
        return dataset[Draw(order[:size].sort().values, None)]

    def loader(
        self, split: Split, *, train: bool = False, stream: str = "main", batch_size: int | None = None
    ) -> DataLoader[RawBatch]:
        """Batches of a split.

        Args:
            split: "train", "meta", "val", "test", or "predict": below `predict_root`.
            train: shuffled, augmented, complete batches only; otherwise every image once, in order, as it is.
            stream: name of an independent order and augmentation.
            batch_size: the module's own by default; capped at the size of the split, or of a device's share of it.

        Raises:
            InputError: a training batch larger than a device's share, or Lightning's `overfit_batches`, which would
                swap the sampler for one of single images.
        """
        if overfit := getattr(self.trainer, "overfit_batches", 0):
            raise InputError(
                f"`overfit_batches` does not work on data in memory. Found overfit_batches={overfit}: "
                "set `num_train` to a few images, and `crop_padding: 0`."
            )
        dataset = self._dataset(split)
        if not len(dataset):
            raise InputError(f"`{split}_split` must be above 0 for images to be held out. Found {split}_split=0.")
        devices = self.trainer.world_size if self.trainer else 1
        beside = train and stream != "main"  # of streams beside the training loop a smaller batch will do
        share = max(1, len(dataset) // devices) if beside else len(dataset)
        size = min(self.batch_size if batch_size is None else batch_size, share)
        rank = self.trainer.global_rank if self.trainer else 0
        # Within a fit, and with sharded parameters, devices meet in each forward pass, and must have equally many.
        pads = split not in ("test", "predict") or not (self.trainer and holds_whole_parameters(self.trainer.strategy))
        place: dict[str, Any] = {"num_replicas": devices, "rank": rank, "pads": pads}
        sampler = (
            PartlyLabelledSampler(dataset, size, self.labelled_share, global_seed(), stream, devices, rank)
            if train and isinstance(dataset, PartlyLabelledDataset)
            else BatchSampler(dataset, size, train=train, seed=global_seed(), stream=stream, **place)
        )
        if train and not len(sampler):
            raise InputError(
                f"`batch_size` must not exceed a device's share of the {split} images, {sampler.num_samples}. "
                f"Found batch_size={sampler.batch_size}."
            )
        # A generator of its own: an iterator's seed, which no worker reads here, would move the global one.
        return DataLoader(dataset, sampler=sampler, batch_size=None, generator=torch.Generator())  # type: ignore[arg-type]

    def training_batches(
        self, stream: str, epoch: int, batch_size: int | None = None, split: Split = "train"
    ) -> Iterator[Batch]:
        """One pass beside the training loop, shuffled and augmented, on the trainer's device.

        Args:
            stream: name of an independent order and augmentation.
            epoch: which pass of that stream.
            batch_size: the module's own by default; capped at the size of the split.
            split: "train", or the images of `meta_split`.
        """
        loader = self.loader(split, train=True, stream=stream, batch_size=batch_size)
        cast(BatchSampler, loader.sampler).set_epoch(epoch)
        for raw in loader:
            yield cast(L.Trainer, self.trainer).strategy.batch_to_device(raw)

    def plain_batches(self, split: Split) -> Iterator[Batch]:
        """Every image of a split, in order and as it is; the same on all of the trainer's devices.

        Args:
            split: "train", "meta", "val", "test", or "predict": below `predict_root`.
        """
        dataset = self._dataset(split)
        for positions in torch.split(torch.arange(len(dataset)), self.batch_size):
            yield cast(L.Trainer, self.trainer).strategy.batch_to_device(dataset[Draw(positions, None)])

    def train_dataloader(self) -> DataLoader[RawBatch]:
        """Training batches of the main network."""
        return self.loader("train", train=True)

    def val_dataloader(self) -> DataLoader[RawBatch]:
        """Validation batches."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[RawBatch]:
        """Test batches."""
        return self.loader("test")

    def predict_dataloader(self) -> DataLoader[RawBatch]:
        """Batches of the images below `predict_root`, or else of the test images."""
        return self.loader("predict")

    def on_after_batch_transfer(self, batch: RawBatch | Batch, dataloader_idx: int) -> Batch:
        """Augment and normalise on the device. A `Batch` made elsewhere passes as it is."""
        if not isinstance(batch, RawBatch):
            return batch
        batch = self.pipeline(batch)
        return cast(Batch, self.trainer.precision_plugin.convert_input(batch)) if self.trainer else batch


for _options in (BasicOptions, ImageOptions):
    share_docs(_options, ImageDataModule)
