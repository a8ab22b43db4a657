"""What a seed set tells of the labels that could be bought: relatedness, reduction rates, information (TABA)."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from auxlight.budget.curves import LearningCurve, fit_curve
from auxlight.budget.gain import Gain
from auxlight.budget.images import TaskImages
from auxlight.budget.joint import Metric, Predictor, Training, accuracy
from auxlight.budget.labels import LabelType
from auxlight.budget.ledger import Ledger
from auxlight.budget.relatedness import information, relatedness
from auxlight.errors import InputError
from auxlight.seeding import derive_seed


class Estimate(NamedTuple):
    """What an allocation needs, for T label types.

    Attributes:
        related: (T, T), see `relatedness`.
        information: (T,) of the first labels.
        curves: of pseudo-labels, one for each type.
        points: by task, the counts and metrics that its curve was fitted to.
    """

    related: np.ndarray
    information: list[float]
    curves: list[LearningCurve]
    points: dict[str, tuple[list[int], list[float]]]

    def gains(self) -> list[Gain]:
        """Of each type, by its curve."""
        return [curve.gain for curve in self.curves]


class Estimator:
    """Trains small networks on a seed set, and asks what further labels would tell.

    *Our reconstruction.* For each of `seeds` splits of the seed set into training and held-out images: each task is
    trained alone, and with each other task, for the relatedness. A network trained on all tasks then labels the pool
    (pseudo-labels), and each task is trained on growing numbers of those, for the reduction rate. All metrics are of
    true labels of the held-out images.

    Args:
        seeds: splits, at least 3.
        counts: pseudo-labels to train on; their smallest step is the block of the reduction rate.
        held_out: share of the seed set that metrics are measured on.
        level: see `relatedness` and `fit_curve`.
        metric: of predicted and true classes.

    Raises:
        InputError: fewer than three seeds or counts, or a share out of range.
    """

    def __init__(
        self,
        seeds: int = 3,
        counts: Sequence[int] = (50, 100, 150, 200, 300, 400),
        held_out: float = 0.4,
        level: float = 0.95,
        metric: Metric = accuracy,
    ) -> None:
        if seeds < 3:
            raise InputError(f"`seeds` must be at least 3. Found seeds={seeds}.")
        if len(set(counts)) < 3 or min(counts) < 1:
            raise InputError(f"`counts` must be three or more different numbers ≥ 1. Found counts={list(counts)}.")
        if not 0 < held_out < 1:
            raise InputError(f"`held_out` must lie between 0 and 1. Found held_out={held_out}.")
        self.seeds = seeds
        self.counts = sorted(counts)
        self.held_out = held_out
        self.level = level
        self.metric = metric

    def __call__(
        self,
        seed_set: TaskImages,
        pool: Tensor,
        classes: Mapping[str, int],
        types: Sequence[LabelType],
        training: Training,
        ledger: Ledger,
        name: str = "",
    ) -> Estimate:
        """Estimate.

        Args:
            seed_set: images whose labels of all types are known.
            pool: (P, 3, H, W) uint8, images without labels.
            classes: number of classes of each task.
            types: T label types, named like the tasks.
            training: of the networks.
            ledger: of results, which are not computed twice.
            name: of this estimate in the ledger.

        Raises:
            InputError: a seed set without labels of a type, too small a seed set or pool, or a metric that is not
                finite, or below 0.
        """
        tasks = [one.name for one in types]
        for task in tasks:
            if task not in seed_set.labels or not (seed_set.labels[task] >= 0).all():
                raise InputError(
                    "Each image of the seed set must have a label of each task. Found images without one of "
                    f"{task!r}; the data's tasks are {sorted(seed_set.labels)}."
                )
        if len(pool) < max(self.counts):
            raise InputError(
                f"`counts` must not exceed the {len(pool)} images of the pool. Found counts={self.counts}."
            )
        size = round(len(seed_set) * self.held_out)
        if size < 1 or size >= len(seed_set):
            raise InputError(
                f"The seed set must have images to train on and to hold out. Found {len(seed_set)} in all."
            )
        trainings = _Trainings(training, classes, self.metric, ledger, name)
        single = np.zeros((self.seeds, len(tasks)))
        joint = np.zeros((self.seeds, len(tasks), len(tasks)))
        points: dict[str, tuple[list[int], list[float]]] = {task: ([], []) for task in tasks}
        pairs = list(combinations(range(len(tasks)), 2))
        total = self.seeds * (len(tasks) + len(pairs) + len(tasks) * len(self.counts))
        with tqdm(total=total, desc=name or "estimate", leave=False, disable=None) as bar:
            for seed in range(self.seeds):
                order = torch.randperm(len(seed_set), generator=_generator("seed set", name, seed))
                held, train = seed_set.select(order[:size]), seed_set.select(order[size:])
                for i, task in enumerate(tasks):
                    single[seed, i] = trainings.metrics(f"single/{task}", seed, train, [task], held)[0]
                    bar.update()
                for i, j in pairs:
                    pair = [tasks[i], tasks[j]]
                    joint[seed, [j, i], [i, j]] = trainings.metrics(f"joint/{'/'.join(pair)}", seed, train, pair, held)
                    bar.update()
                pseudo = _PseudoLabels(trainings, seed, train, tasks, pool)
                shuffled = torch.randperm(len(pool), generator=_generator("pool", name, seed))
                for task in tasks:
                    for count in self.counts:
                        images = partial(pseudo.images, task, shuffled[:count])
                        found = trainings.metrics(f"pseudo/{task}/{count}", seed, images, [task], held)
                        points[task][0].append(count)
                        points[task][1].append(found[0])
                        bar.update()
        related = relatedness(single, joint, self.level)
        splits = np.repeat(np.arange(self.seeds), len(self.counts))  # of the points, seed by seed
        curves = [fit_curve(*points[task], level=self.level, splits=splits.tolist()) for task in tasks]
        return Estimate(related, information(types, related), curves, points)


class _Trainings:
    """Trains, measures, and remembers."""

    def __init__(
        self, training: Training, classes: Mapping[str, int], metric: Metric, ledger: Ledger, name: str
    ) -> None:
        self.training = training
        self.classes = classes
        self.metric = metric
        self.ledger = ledger
        self.name = name

    def predictor(self, seed: int, train: TaskImages, tasks: Sequence[str]) -> Predictor:
        """A trained network."""
        return self.training(train, self.classes, tasks, derive_seed(self.name, seed))

    def metrics(
        self, key: str, seed: int, train: TaskImages | Callable[[], TaskImages], tasks: Sequence[str], held: TaskImages
    ) -> list[float]:
        """Of each task on held-out images; training images may be made when they are asked for."""

        def compute() -> list[float]:
            images = train if isinstance(train, TaskImages) else train()
            predicted = self.predictor(seed, images, tasks)(held.image)
            return [measured(self.metric, predicted, held, task) for task in tasks]

        found: list[float] = self.ledger.get(f"{self.name}/{seed}/{key}", compute)
        return found


class _PseudoLabels:
    """Labels of the pool by a network trained on the seed set; it is trained when first asked for."""

    def __init__(self, trainings: _Trainings, seed: int, train: TaskImages, tasks: Sequence[str], pool: Tensor) -> None:
        self._predictor = partial(trainings.predictor, seed, train, tasks)
        self._pool = pool
        self._labels: dict[str, Tensor] | None = None

    def images(self, task: str, chosen: Tensor) -> TaskImages:
        """Images of the pool with a task's pseudo-labels."""
        if self._labels is None:
            self._labels = self._predictor()(self._pool)
        return TaskImages(self._pool[chosen], {task: self._labels[task][chosen]})


def measured(metric: Metric, predicted: Mapping[str, Tensor], images: TaskImages, task: str) -> float:
    """A task's metric on the images whose label is known, if it is one.

    Raises:
        InputError: nan or infinite, or no image with a label.
    """
    labels = images.labels[task]
    known = labels >= 0
    if not known.any():
        raise InputError(f"Held-out images must have labels. Found none for task {task!r}.")
    value = float(metric(predicted[task][known], labels[known]))
    if not math.isfinite(value):
        raise InputError(f"`metric` must give finite numbers. Found {value} for task {task!r} of {len(images)} images.")
    return value


def _generator(*coordinates: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(*coordinates))
