"""After how many steps does the primary loss know useful labels from useless ones?

    python benchmarks/label_horizon.py [--quick] [--root DIR] [--networks N] [--branches N]

What learns labels (an agent by its reward, a label network by its look-ahead) sees the primary loss a few steps after
them. Here the whole labelling is exchanged at once: from networks that have trained on uniform labels, branches go on
with human, cluster, random or no labels, all on the same batches, and after 1, 5, 25 and 125 steps the primary loss is
measured on 1,000 training images and on 2,000 that are held out. Figures are differences between branches (negative:
the first is better): the mean, and its standard error over networks, each of which counts once.

Real CIFAR-100 from a mirror in DIR, 3 primary classes, 5,000 images, VGG11 at a quarter of its width, starts after 50,
250 and 1,000 steps at a constant rate; the embedded digits without it. There is no target: it is the ground that
rewards and look-aheads stand on.
"""

import argparse
import copy
import itertools
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import lightning as L
import torch
from common import header
from small_study import RECIPE, AtSteps, print_means, small_data, train
from torch.optim import SGD

from auxlight import (
    Batch,
    ClusterLabels,
    HumanLabels,
    Labeler,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from auxlight.networks.buffers import evaluation_mode

Losses = dict[tuple[str, int, str], list[float]]  # (labels, steps, images) → loss of each branch
AGAINST = {
    "uniform": ["human", "cluster", "random", "none"],
    "random": ["human"],
    "none": ["human"],
    "cluster": ["human"],
}


class Branches(AtSteps):
    """Measures branches at some steps of a fit."""

    def __init__(self, seed: int, starts: list[int], horizons: list[int], count: int) -> None:
        super().__init__(starts, seed)
        self.horizons = horizons
        self.count = count
        self.losses: Losses = {}

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """All labels on the same batches, branch by branch."""
        start = trainer.global_step
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
        made: dict[str, Labeler] = {
            "uniform": UniformLabels(),
            "human": HumanLabels(),
            "cluster": ClusterLabels(start_epoch=0, seed=seed),
            "random": RandomLabels(seed=seed),
        }
        settle(made.values(), module, data)
        return {**made, "none": None}

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


def settle(labelers: Iterable[Labeler], module: MultiHeadVGG, data: Any) -> None:
    """Bind labelers to a network as it is, and let them see the training images."""
    for labeler in labelers:
        labeler.bind(module.hierarchy, module.trunk, module.feature_dim)
        labeler.before_step(0, None, module.trunk, partial(data.plain_batches, "train"))


def endless(data: Any, stream: str) -> Iterator[Batch]:
    """Training batches, in an order of their own."""
    for number in itertools.count():
        yield from data.training_batches(stream, number)


@torch.no_grad()
def primary_loss(network: MultiHeadVGG, batches: list[Batch]) -> float:
    """Its mean over the images."""
    with evaluation_mode(network):
        losses = [network.primary_losses(network(batch.image), batch) for batch in batches]
    return float(torch.cat(losses).mean())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few branches of few steps")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--networks", type=int, default=5, help="each with a seed of its own")
    parser.add_argument("--branches", type=int, default=1, help="from each start of each network")
    arguments = parser.parse_args()
    starts, horizons, networks = [50, 250, 1000], [1, 5, 25, 125], arguments.networks
    if arguments.quick:
        starts, horizons, networks = [20], [1, 5, 25], 3
    rooted = arguments.root and "given"
    header(starts=starts, horizons=horizons, networks=networks, branches=arguments.branches, root=rooted)
    data = small_data(arguments.root)
    pairs = [(other, name) for other, names in AGAINST.items() for name in names]
    means: dict[str, list[float]] = {}  # pair, images and steps → each network's difference
    for seed in range(networks):
        watch = Branches(seed, starts, horizons, arguments.branches)
        train(data, UniformLabels(), watch)
        losses = {key: fmean(found) for key, found in watch.losses.items()}
        for (other, name), kind, step in itertools.product(pairs, ("train", "held_out"), horizons):
            gap = losses[name, step, kind] - losses[other, step, kind]
            means.setdefault(f"{name}_{other}_{kind}_{step}", []).append(gap)
    print_means(means, "+.4f", lambda name: f"{name:32s}")


if __name__ == "__main__":
    main()
