"""Does a step of look-ahead vote for the labels that a network trains on?

    python benchmarks/label_votes.py [--quick] [--root DIR] [--networks N]

Networks train on human, random, cluster and uniform labels. After 250 and 750 steps the exact look-ahead gradient
(MAXL's hypergradient with `meta_split`, and what the influence reward pays for) says of every label of an image's block
what a little more of it would do to the primary loss after the step, on a batch of held-out images. Each labelling gets
a vote from each network: the share of the block's other labels that are worse than its own, mean over images and
batches. 0.5 is chance, 1 is every image's best label. Printed are means over networks and their standard errors; each
network counts once, but they share the held-out images. Votes for labels that a network does not train on are 0.5 but
for errors, since its head does not know them by their numbers.

Real CIFAR-100 from a mirror in DIR, 3 primary classes, 5,000 images, VGG11 at a quarter of its width, a constant rate;
the embedded digits without it. There is no target.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import header, report
from small_study import AtSteps, endless, mean_and_error, settle, small_data, train
from torch import Tensor

from auxlight import (
    AuxiliaryTarget,
    Batch,
    ClusterLabels,
    HumanLabels,
    Labeler,
    LookAheadGradient,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from auxlight.hypergradient import MetaProblem
from auxlight.lookahead import LookAhead
from auxlight.modules.joint_losses import JointLosses
from auxlight.networks.buffers import kept_buffers

BATCHES = 8
Votes = dict[tuple[str, str], list[float]]  # (trained on, voted on) → each measurement


class Poll(AtSteps):
    """Asks a network at some of its steps."""

    def __init__(self, trained_on: str, steps: list[int], seed: int) -> None:
        super().__init__(steps, seed)
        self.trained_on = trained_on
        self.votes: Votes = {}

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """What the network thinks of the labellings."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        labelers: dict[str, Labeler] = {
            "human": HumanLabels(),
            "random": RandomLabels(seed=self.seed),
            "cluster": ClusterLabels(start_epoch=0, seed=self.seed),
        }
        assert module.labelled_task is not None
        own = module.labelled_task.labeler
        settle((labeler for name, labeler in labelers.items() if name != self.trained_on), module, data)
        if self.trained_on in labelers:
            labelers[self.trained_on] = own
        train = itertools.islice(endless(data, "poll"), BATCHES)
        held_out = itertools.islice(itertools.cycle(data.plain_batches("val")), BATCHES)
        for batch, meta in zip(train, held_out, strict=True):
            with torch.no_grad(), kept_buffers(module):
                features = module.features(batch.image)
                trained = own(batch, features)
                labels = {name: labeler(batch, features).probabilities for name, labeler in labelers.items()}
            slopes = self.slopes(trainer, module, batch, trained, meta)
            block = module.hierarchy.mask[batch.primary]
            for name, probabilities in labels.items():
                self.votes.setdefault((self.trained_on, name), []).append(vote(slopes, probabilities, block))

    def slopes(
        self, trainer: L.Trainer, module: MultiHeadVGG, batch: Batch, target: AuxiliaryTarget, meta: Batch
    ) -> Tensor:
        """∂L_pri(θ⁺)/∂t (B, K), for the targets that the network trains on."""
        step = LookAhead(trainer.optimizers[0])
        with kept_buffers(module):
            problem = MetaProblem(JointLosses(module), [batch], [target], [meta], step, module.aux_weight)
            return LookAheadGradient()(problem).targets[0].probabilities


def vote(slopes: Tensor, probabilities: Tensor, block: Tensor) -> float:
    """Share of the block's other labels that would do less for the primary loss than the image's own; ties half."""
    own = slopes.gather(1, probabilities.argmax(1, keepdim=True))
    others = block.clone().scatter(1, probabilities.argmax(1, keepdim=True), False)
    worse = ((slopes > own) + 0.5 * (slopes == own)) * others
    return float((worse.sum(1) / others.sum(1)).mean())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, few steps")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--networks", type=int, default=3, help="of each labelling, each with a seed of its own")
    arguments = parser.parse_args()
    steps, networks = ([30], 2) if arguments.quick else ([250, 750], arguments.networks)
    header(steps=steps, networks=networks, rooted=bool(arguments.root))
    data = small_data(arguments.root)
    means: Votes = {}
    for seed in range(networks):
        makes: dict[str, Labeler] = {
            "uniform": UniformLabels(),
            "human": HumanLabels(),
            "random": RandomLabels(seed=seed),
            "cluster": ClusterLabels(start_epoch=0 if arguments.quick else 2, seed=seed),
        }
        for name, labeler in makes.items():
            poll = Poll(name, steps, seed)
            train(data, labeler, poll)
            for pair, found in poll.votes.items():
                means.setdefault(pair, []).append(sum(found) / len(found))
            print(f"network {seed}, trained on {name} labels", flush=True)
    figures: dict[str, float] = {}
    for (trained_on, name), found in means.items():
        mean, error = mean_and_error(found)
        print(f"trained on {trained_on:8s} vote for {name:8s} {mean:.3f} ± {error:.3f}")
        figures |= {f"{trained_on}_{name}": mean, f"{trained_on}_{name}_error": error}
    report({name: round(value, 6) for name, value in figures.items()}, ok=True)


if __name__ == "__main__":
    main()
