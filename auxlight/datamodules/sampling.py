"""Which images belong to which split, and in which order they come."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from auxlight.datamodules.images import BatchDataset, Draw
from auxlight.errors import InputError
from auxlight.seeding import derive_seed


def stratified_split(strata: Tensor, name: str, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Positions that stay for training and positions held out; each class keeps its share in both.

    Args:
        strata: (N,) class of each image.
        name: of the parameter `share`, for messages.
        share: to hold out, in (0, 1).
        seed: of the choice.

    Returns:
        Sorted positions (N_train,), (N_held_out,).

    Raises:
        InputError: a share outside (0, 1), or one that leaves a split empty.
    """
    if not 0 < share < 1:
        raise InputError(f"`{name}` must lie between 0 and 1, so that neither split is empty. Found {name}={share}.")
    order = _ShuffledByClass(strata, derive_seed(seed, name))
    # Largest remainders: every class gives its share, rounded so that the total is right.
    counts = torch.bincount(strata)
    exact = counts * share
    take = exact.floor().long()
    missing = round(len(strata) * share) - int(take.sum())
    take[(exact - take).argsort(descending=True, stable=True)[:missing]] += 1
    chosen = order.rank < take[strata]
    if not chosen.any() or chosen.all():
        raise InputError(
            f"`{name}` must leave at least one image on either side. Found {name}={share} of {len(strata)} images."
        )
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]


def balanced_subset(strata: Tensor, size: int, seed: int, name: str = "num_train") -> Tensor:
    """`size` positions, as many of each class as of any other (±1) as far as the classes reach.

    Subsets are nested: with the same seed a smaller one lies inside a larger one.

    Raises:
        InputError: more than there are, or fewer than there are classes.
    """
    classes = int((torch.bincount(strata) > 0).sum())
    if not classes <= size <= len(strata):
        raise InputError(
            f"`{name}` must lie between {classes} (one image per class) and {len(strata)} "
            f"(the training images left after the validation split). Found {name}={size}."
        )
    order = _ShuffledByClass(strata, derive_seed(seed, "subset"))
    # The k-th images of all classes come before the (k+1)-th of any.
    return torch.argsort(order.rank * len(strata) + order.tie, stable=True)[:size].sort().values


class _ShuffledByClass:
    """A random order of the images inside each class.

    Attributes:
        rank: (N,) position of each image among those of its class.
        tie: (N,) position of each image in the shuffle of all.
    """

    def __init__(self, strata: Tensor, seed: int) -> None:
        order = torch.randperm(len(strata), generator=torch.Generator().manual_seed(seed))
        self.tie = torch.empty_like(order)
        self.tie[order] = torch.arange(len(order))
        by_class = order[torch.argsort(strata[order], stable=True)]
        counts = torch.bincount(strata)
        first = counts.cumsum(0) - counts
        self.rank = torch.empty_like(order)
        self.rank[by_class] = torch.arange(len(order)) - first[strata[by_class]]


class BatchSampler(DistributedSampler[Draw]):
    """Draws of whole batches, each device its share; a function of (seed, stream, epoch) alone.

    Lightning calls `set_epoch` and leaves a `DistributedSampler` in place on several devices.

    Args:
        dataset: where the images come from.
        batch_size: images per batch and device.
        train: shuffle, augment and drop the incomplete last batch (other images each epoch); else in order, complete.
        seed: of the run.
        stream: independent streams (main network, agent, reward) see other orders and augmentations.
        num_replicas: number of devices.
        rank: this device.
        pads: where not `train`: devices get equally many images, some of them twice. Otherwise each image once, unless
            there are fewer than devices.
    """

    def __init__(
        self,
        dataset: BatchDataset,
        batch_size: int,
        *,
        train: bool,
        seed: int,
        stream: str = "main",
        num_replicas: int = 1,
        rank: int = 0,
        pads: bool = True,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=train, seed=seed, drop_last=train)  # type: ignore[arg-type]
        if not (train or pads) and len(dataset) >= num_replicas:
            self.total_size = len(dataset)
            self.num_samples = len(range(rank, self.total_size, num_replicas))
        self.batch_size = batch_size
        self.train = train
        self.stream = stream

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole if self.train or not rest else whole + 1

    def __iter__(self) -> Iterator[Draw]:  # type: ignore[override]
        length = len(self.dataset)  # type: ignore[arg-type]
        if self.train:
            seed = derive_seed(self.seed, self.stream, "order", self.epoch)
            order = torch.randperm(length, generator=torch.Generator().manual_seed(seed))
        else:
            order = torch.arange(length)
        # total_size is the next multiple of the number of devices: below the length in training, above it if padded.
        order = order.repeat(-(-self.total_size // length))[: self.total_size]
        mine = order[self.rank :: self.num_replicas]
        for number, index in enumerate(torch.split(mine, self.batch_size)[: len(self)]):
            draw = (self.seed, self.stream, "augment", self.epoch, self.rank, number)
            yield Draw(index, derive_seed(*draw) if self.train else None)
