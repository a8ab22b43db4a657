"""Batches of which only some images keep their labels."""

from collections.abc import Iterator

import torch
from torch import Tensor

from auxlight.datamodules.images import BatchDataset, Draw, ImageSet, RawBatch
from auxlight.datamodules.sampling import BatchSampler
from auxlight.errors import InputError
from auxlight.seeding import derive_seed

HIDDEN = -1


class PartlyLabelledDataset(BatchDataset):
    """A training split whose first positions are the labelled images; of the others the labels are hidden.

    Args:
        images: where they come from.
        labelled: (L,) positions of those that keep their labels.
        unlabelled: (U,) positions of those that do not.
    """

    def __init__(self, images: ImageSet, labelled: Tensor, unlabelled: Tensor) -> None:
        super().__init__(images, torch.cat([labelled, unlabelled]))
        self.num_labelled = len(labelled)

    def __getitem__(self, draw: Draw) -> RawBatch:
        raw = super().__getitem__(draw)
        known = draw.index < self.num_labelled
        auxiliary = None if raw.auxiliary is None else raw.auxiliary.where(known, HIDDEN)
        return raw._replace(primary=raw.primary.where(known, HIDDEN), auxiliary=auxiliary)


class PartlyLabelledSampler(BatchSampler):
    """Training batches with a fixed number of labelled images, which come first; an epoch is a pass over the others.

    The labelled images come round as often as an epoch needs them, in a new order each time.

    Args:
        dataset: the partly labelled split.
        batch_size: images per batch and device.
        labelled_share: of a batch.
        seed: see `BatchSampler`.
        stream: see `BatchSampler`.
        num_replicas: number of devices.
        rank: this device.

    Raises:
        InputError: a share that leaves a batch without labelled or without unlabelled images, or too few images of
            either kind for a batch of each device.
    """

    def __init__(
        self,
        dataset: PartlyLabelledDataset,
        batch_size: int,
        labelled_share: float,
        seed: int,
        stream: str = "main",
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(
            dataset, batch_size, train=True, seed=seed, stream=stream, num_replicas=num_replicas, rank=rank
        )
        self.counts = (round(batch_size * labelled_share), batch_size - round(batch_size * labelled_share))
        self.sizes = (dataset.num_labelled, len(dataset) - dataset.num_labelled)
        if min(self.counts) < 1:
            raise InputError(
                "`labelled_share` must leave labelled and unlabelled images in a batch. "
                f"Found labelled_share={labelled_share} of batch_size={batch_size}."
            )
        for name, count, size in zip(("labelled", "unlabelled"), self.counts, self.sizes, strict=True):
            if count * num_replicas > size:
                raise InputError(
                    f"A batch of each device needs {count * num_replicas} {name} training images. Found {size}: "
                    "change `num_labelled`, `labelled_share` or `batch_size`."
                )

    def __len__(self) -> int:
        return self.sizes[1] // (self.counts[1] * self.num_replicas)

    def __iter__(self) -> Iterator[Draw]:
        labelled = self._rounds("labelled", self.counts[0] * self.num_replicas, self.sizes[0], 0)
        unlabelled = self._rounds("order", self.counts[1] * self.num_replicas, self.sizes[1], self.sizes[0])
        for number in range(len(self)):
            index = torch.cat([part[self.rank :: self.num_replicas] for part in (next(labelled), next(unlabelled))])
            draw = (self.seed, self.stream, "augment", self.epoch, self.rank, number)
            yield Draw(index, derive_seed(*draw))

    def _rounds(self, name: str, count: int, size: int, first: int) -> Iterator[Tensor]:
        """Shuffled positions, `count` at a time; what a round leaves over begins the next portion."""
        left, number = torch.empty(0, dtype=torch.int64), 0
        while True:
            if len(left) < count:
                seed = derive_seed(self.seed, self.stream, name, self.epoch, number)
                order = torch.randperm(size, generator=torch.Generator().manual_seed(seed)) + first
                left, number = torch.cat([left, order]), number + 1
            yield left[:count]
            left = left[count:]
