"""After how many steps does the primary loss know useful labels from useless ones?

    python benchmarks/label_horizon.py [--quick] [--root DIR] [--networks N] [--branches N]

What learns labels (an agent by its reward, a label network by its look-ahead) sees the primary loss a few steps after
them. Here the whole labelling is exchanged at once: from networks that have trained on uniform labels, branches go on
with human, cluster, random or no labels, all on the same batches, and after 1, 5, 25 and 125 steps the primary loss is
measured on 1,000 training images and on 2,000 that are held out. Figures are differences to the branch with uniform
labels (negative: better): the mean, and its standard error over networks, each of which counts once.

Real CIFAR-100 from a mirror in DIR, 3 primary classes, 5,000 images, VGG11 at a quarter of its width, starts after 50,
250 and 1,000 steps at a constant rate; the embedded digits without it. There is no target: it is the ground that
rewards and look-aheads stand on.
"""

import argparse
import copy
import itertools
import logging
import math
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from agent_epoch import QUIET
from common import header, report
from torch.optim import SGD

from auxlight import (
    Batch,
    CIFAR100SuperclassDataModule,
    ClusterLabels,
    DigitsDataModule,
    HumanLabels,
    Labeler,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from auxlight.networks.buffers import evaluation_mode

RECIPE: dict[str, Any] = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
Losses = dict[tuple[str, int, str], list[float]]  # (labels, steps, images) → loss of each branch


class Branches(L.Callback):
    """Measures branches at some steps of a fit, and leaves the fit as it is."""

    def __init__(self, seed: int, starts: list[int], horizons: list[int], count: int) -> None:
        self.seed = seed
        self.starts = starts
        self.horizons = horizons
        self.count = count
        self.losses: Losses = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Batch, batch_idx: int) -> None:
        """Measure where a start is due."""
        if trainer.global_step in self.starts:
            self.measure(trainer, pl_module, trainer.global_step)
            trainer.should_stop = trainer.global_step == self.starts[-1]

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG, start: int) -> None:
        """All labels on the same batches, branch by branch."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        images = {
            "train": list(itertools.islice(data.plain_batches("train"), 10)),
            "held_out": list(itertools.islice(data.plain_batches("val"), 20)),
        }
        for number in range(self.count):
            labelers = self.labelers(module, data, 1000 * self.seed + number)
            batches = list(itertools.islice(endless(data, f"branch {start} {number}"), self.horizons[-1]))
            for name, labeler in labelers.items():
                self.branch(trainer, module, name, labeler, batches, images)
            print(f"network {self.seed}, start {start}, branch {number + 1} of {self.count}", flush=True)

    def labelers(self, module: MultiHeadVGG, data: Any, seed: int) -> dict[str, Labeler | None]:
        """Of a branch."""
        made: dict[str, Labeler | None] = {
            "uniform": UniformLabels(),
            "human": HumanLabels(),
            "cluster": ClusterLabels(start_epoch=0, seed=seed),
            "random": RandomLabels(seed=seed),
        }
        for labeler in made.values():
            assert labeler is not None
            labeler.bind(module.hierarchy, module.trunk, module.feature_dim)
            labeler.before_step(0, None, module.trunk, partial(data.plain_batches, "train"))
        return made | {"none": None}

    def branch(
        self,
        trainer: L.Trainer,
        module: MultiHeadVGG,
        name: str,
        labeler: Labeler | None,
        batches: list[Batch],
        images: dict[str, list[Batch]],
    ) -> None:
        """One labelling's steps."""
        trainer_of_module, module.trainer = module.trainer, None  # type: ignore[assignment]
        network = copy.deepcopy(module)
        module.trainer = trainer_of_module
        group = {key: value for key, value in trainer.optimizers[0].param_groups[0].items() if key in ("lr", *RECIPE)}
        optimizer = SGD(network.parameters(), **group)
        optimizer.load_state_dict(copy.deepcopy(trainer.optimizers[0].state_dict()))
        task = network.labelled_task
        assert task is not None
        for step, batch in enumerate(batches, 1):
            optimizer.zero_grad()
            logits = network.primary_head(features := network.features(batch.image))
            loss = network.primary_losses(logits, batch).mean()
            if labeler is not None:
                with torch.no_grad():
                    target = labeler(batch, features)
                with task.given(target):
                    losses, weights = task(network.trunk, features, batch)
                loss = loss + (weights * losses).mean()
            loss.backward()
            optimizer.step()
            if step in self.horizons:
                for kind, seen in images.items():
                    self.losses.setdefault((name, step, kind), []).append(primary_loss(network, seen))


@torch.no_grad()
def primary_loss(network: MultiHeadVGG, batches: list[Batch]) -> float:
    """Its mean over the images."""
    with evaluation_mode(network):
        losses = [network.primary_losses(network(batch.image), batch) for batch in batches]
    return float(torch.cat(losses).mean())


def endless(data: Any, stream: str) -> Iterator[Batch]:
    """Training batches, in an order of their own."""
    for number in itertools.count():
        yield from data.training_batches(stream, number)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few branches of few steps")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--networks", type=int, default=4, help="each with a seed of its own")
    parser.add_argument("--branches", type=int, default=1, help="from each start of each network")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    starts, horizons, networks = [50, 250, 1000], [1, 5, 25, 125], arguments.networks
    if arguments.quick:
        starts, horizons, networks = [20], [1, 5, 25], 3
    rooted = arguments.root and "given"
    header(starts=starts, horizons=horizons, networks=networks, branches=arguments.branches, root=rooted)
    data: Any = (
        DigitsDataModule(num_train=600)
        if arguments.root is None
        else CIFAR100SuperclassDataModule(arguments.root, num_train=5000, primary_level=3)
    )
    optimizer = partial(SGD, lr=0.05, **RECIPE)
    size: dict[str, Any] = {"depth": 11, "width": 0.25}
    means: dict[tuple[str, int, str], list[float]] = {}  # (labels, steps, images) → each network's difference
    for seed in range(networks):
        L.seed_everything(seed, verbose=False)
        module = MultiHeadVGG(data.hierarchy, labeler=UniformLabels(), focal_gamma=0.0, optimizer=optimizer, **size)
        watch = Branches(seed, starts, horizons, arguments.branches)
        quiet = QUIET | {"limit_val_batches": 0, "num_sanity_val_steps": 0}
        L.Trainer(max_epochs=-1, callbacks=[watch], **quiet).fit(module, data)
        for (name, step, kind), losses in watch.losses.items():
            gap = torch.tensor(losses).double() - torch.tensor(watch.losses["uniform", step, kind]).double()
            means.setdefault((name, step, kind), []).append(float(gap.mean()))
    figures: dict[str, float] = {}
    for (name, step, kind), found in means.items():
        if name != "uniform":
            mean, error = float(torch.tensor(found).mean()), float(torch.tensor(found).std() / math.sqrt(len(found)))
            print(f"{step:4d} steps  {kind:9s} {name:8s} {mean:+.4f} ± {error:.4f}")
            figures |= {f"{name}_{kind}_{step}": mean, f"{name}_{kind}_{step}_error": error}
    report({name: round(value, 6) for name, value in figures.items()}, ok=True)


if __name__ == "__main__":
    main()
