"""Setting (a) of the small study without its schedule, for benchmarks that look into a network as it trains."""

import logging
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from agent_epoch import QUIET
from common import report
from torch.optim import SGD

from auxlight import Batch, CIFAR100SuperclassDataModule, DigitsDataModule, Labeler, LabelHierarchy, MultiHeadVGG

RECIPE: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


class AtSteps(L.Callback):
    """Measures a network before some of its steps, and ends the fit with the last of them."""

    def __init__(self, steps: list[int], seed: int) -> None:
        self.steps = steps
        self.seed = seed
        self.found: dict[str, list[float]] = {}  # figure → of each of the steps

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Measure where it is due."""
        if trainer.global_step in self.steps:
            self.measure(trainer, pl_module)
            trainer.should_stop = trainer.global_step == self.steps[-1]

    def note(self, name: str, value: float) -> None:
        """A figure of this step."""
        self.found.setdefault(name, []).append(value)

    @abstractmethod
    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """And leave the fit as it is."""


def small_data(root: Path | None) -> Any:
    """CIFAR-100 with 3 primary classes, 5,000 images; the embedded digits without a root."""
    if root is None:
        return DigitsDataModule(num_train=600)
    return CIFAR100SuperclassDataModule(root, num_train=5000, primary_level=3)


def train(data: Any, labeler: Labeler, watch: AtSteps, hierarchy: LabelHierarchy | None = None) -> None:
    """Until `watch` ends it, at a constant rate; with the data's own blocks of labels, if no others are given."""
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    L.seed_everything(watch.seed, verbose=False)
    optimizer = partial(SGD, lr=0.05, **RECIPE)
    size: dict[str, Any] = {"depth": 11, "width": 0.25}
    module = MultiHeadVGG(hierarchy or data.hierarchy, labeler=labeler, focal_gamma=0.0, optimizer=optimizer, **size)
    quiet = QUIET | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
    L.Trainer(max_epochs=-1, callbacks=[watch], **quiet).fit(module, data)


def mean_and_error(values: list[float]) -> tuple[float, float]:
    """Mean of independent values, and its standard error."""
    found = torch.tensor(values)
    return float(found.mean()), float(found.std() / math.sqrt(len(found)))


def print_means(means: dict[str, list[float]], form: str, title: Callable[[str], str] = str) -> None:
    """Of each figure the mean over networks and its standard error, by lines and as the benchmark's last one."""
    figures: dict[str, float] = {}
    for name, found in means.items():
        mean, error = mean_and_error(found)
        print(f"{title(name)} {mean:{form}} ± {error:.4f}")
        figures |= {name: mean, f"{name}_error": error}
    report({name: round(value, 6) for name, value in figures.items()}, ok=True)
