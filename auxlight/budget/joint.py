"""Training on whatever labels there are: one trunk, a head for each task."""

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from auxlight.budget.images import TaskImages
from auxlight.errors import InputError
from auxlight.networks.heads import Head
from auxlight.networks.lenet import LeNet
from auxlight.seeding import derive_seed, isolated_rng

# Images (N, 3, H, W) uint8 → by task, the predicted classes (N,).
Predictor = Callable[[Tensor], dict[str, Tensor]]
# Predicted and true classes (n,) → a number ≥ 0, higher is better.
Metric = Callable[[Tensor, Tensor], float]


class Training(ABC):
    """Trains a network on some tasks; one of your own is one class."""

    @abstractmethod
    def __call__(self, train: TaskImages, classes: Mapping[str, int], tasks: Sequence[str], seed: int) -> Predictor:
        """Train.

        Args:
            train: images with their labels, −1 where there is none.
            classes: number of classes of each task.
            tasks: to train on.
            seed: of everything that is drawn.
        """


def accuracy(predicted: Tensor, true: Tensor) -> float:
    """Share of right predictions."""
    return float((predicted == true).float().mean())


class _Batch(NamedTuple):
    image: Tensor
    labels: dict[str, Tensor]


class _Batches(IterableDataset[_Batch]):
    """Endless passes over those images that have a label of any of the tasks, each in a new order."""

    def __init__(self, train: TaskImages, tasks: Sequence[str], batch_size: int, seed: int) -> None:
        known = torch.stack([train.labels[task] >= 0 for task in tasks]).any(0).nonzero()[:, 0]
        self.train = train.select(known)
        self.tasks = tasks
        self.batch_size = batch_size
        self.seed = seed

    def __iter__(self) -> Iterator[_Batch]:
        generator = torch.Generator().manual_seed(derive_seed("order", self.seed))
        size = min(self.batch_size, len(self.train))
        while True:
            order = torch.randperm(len(self.train), generator=generator)
            for index in torch.split(order, size):
                if len(index) == size:
                    labels = {task: self.train.labels[task][index] for task in self.tasks}
                    yield _Batch(_normalised(self.train.image[index]), labels)


def _normalised(image: Tensor) -> Tensor:
    return image.float() / 127.5 - 1


class JointClassifier(L.LightningModule):
    """L = Σ_tasks (1/n_m) Σ_i ℓ_im over the n_m images of the batch whose label of task m is known: cross-entropy.

    A label that is not there costs nothing and gives no gradient.

    Args:
        trunk: images → (B, trunk.feature_dim).
        classes: number of classes of each task.
        lr: rate of Adam.
    """

    def __init__(self, trunk: nn.Module, classes: Mapping[str, int], lr: float) -> None:
        super().__init__()
        self.trunk = trunk
        self.lr = lr
        dim = getattr(trunk, "feature_dim", None)
        if not isinstance(dim, int):
            raise InputError(
                f"`trunk` must say the size of its features in `feature_dim`. Found {type(trunk).__name__} without."
            )
        # By number: a task's name may be no name of a module.
        self.names = list(classes)
        self.heads = nn.ModuleList([Head(dim, classes[name]) for name in self.names])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Logits of each task."""
        features = self.trunk(image)
        return {name: head(features) for name, head in zip(self.names, self.heads, strict=True)}

    def training_step(self, batch: _Batch, batch_idx: int) -> Tensor:
        """The loss."""
        losses = []
        for name, logits in self(batch.image).items():
            label = batch.labels[name]
            known = int((label >= 0).sum())
            losses.append(F.cross_entropy(logits, label, ignore_index=-1, reduction="sum") / max(1, known))
        return torch.stack(losses).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class JointTraining(Training):
    """So many steps of a `JointClassifier`, whatever the number of labels.

    Args:
        steps: of Adam.
        batch_size: images per step.
        lr: of Adam.
        trunk: makes the trunk; a `LeNet` by default.

    Raises:
        InputError: a number out of range.
    """

    def __init__(
        self, steps: int = 300, batch_size: int = 64, lr: float = 2e-3, trunk: Callable[[], nn.Module] = LeNet
    ) -> None:
        for name, value in (("steps", steps), ("batch_size", batch_size), ("lr", lr)):
            if not value > 0:
                raise InputError(f"`{name}` of JointTraining must be positive. Found {name}={value}.")
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.trunk = trunk

    def __call__(self, train: TaskImages, classes: Mapping[str, int], tasks: Sequence[str], seed: int) -> Predictor:
        """See `Training`."""
        for task in tasks:
            if not (train.labels[task] >= 0).any():
                raise InputError(f"There must be labels of each task that is trained on. Found none of {task!r}.")
        batches = _Batches(train, tasks, self.batch_size, seed)
        with isolated_rng(derive_seed("joint training", seed)), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = JointClassifier(self.trunk(), {task: classes[task] for task in tasks}, self.lr)
            logger = logging.getLogger("lightning.pytorch")
            level = logger.level
            logger.setLevel(logging.ERROR)
            try:
                trainer = L.Trainer(barebones=True, max_steps=self.steps, accelerator="auto", devices=1)
                trainer.fit(module, DataLoader(batches, batch_size=None))
            finally:
                logger.setLevel(level)
        module.eval()

        @torch.no_grad()
        def predict(image: Tensor) -> dict[str, Tensor]:
            parts = [
                {task: logits.argmax(1).cpu() for task, logits in module(_normalised(part).to(module.device)).items()}
                for part in torch.split(image, 1000)
            ]
            return {task: torch.cat([part[task] for part in parts]) for task in tasks}

        return predict
