"""If a learner is offered good labels on a plate, does the gradient of one step take them?

    python benchmarks/label_duel.py [--quick] [--root DIR] [--networks N] [--seed S]

Each network trains on four labellings at once, a quarter of the target each, in places of their own: human labels;
clusters of each primary class in the network's own features after 4 epochs, as in the small study; clusters in those of
the untrained network (looks); random labels. After 500 and 1,000 steps the exact look-ahead gradient (see
`label_votes.py`, whose `--help` explains it) says what a little more of each would do to the primary loss of held-out
images, after a step on uniform labels. Of 2,000 images that the network has not trained on:

- duel: the share for which the first labelling's label is the better one. 0.5: no preference. What learns image by
  image follows it.
- batch: the share of batches (of 100 images, two times twenty for each network) in which the first is better on
  average. What learns one thing for all images follows it.
- known: the share whose label is the auxiliary head's first choice among those of its labelling and block.

Printed are means over networks, and their standard errors.

Real CIFAR-100 from a mirror in DIR, 3 primary classes, 5,000 images, VGG11 at a quarter of its width, a constant rate;
the embedded digits, and fewer images, without it. There is no target.
"""

import argparse
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import header, report
from label_votes import gradient, unseen
from small_study import AtSteps, mean_and_error, small_data, train
from torch import Tensor, nn

from auxlight import (
    AuxiliaryTarget,
    Batch,
    ClusterLabels,
    HumanLabels,
    Labeler,
    LabelHierarchy,
    MultiHeadVGG,
    RandomLabels,
)
from auxlight.labelers.base import Images
from auxlight.modules.joint_losses import JointLosses
from auxlight.networks.buffers import evaluation_mode, kept_buffers

DUELS = ["human-cluster", "human-looks", "human-random", "cluster-random", "looks-random"]


class SideBySide(Labeler):
    """Several labellings at once: each block has a place for every labelling's block, and each an equal share.

    Args:
        parts: the labellings, by name.
        hierarchy: theirs; the module's has blocks of `len(parts)` times their size.
    """

    place: Tensor

    def __init__(self, parts: dict[str, Labeler], hierarchy: LabelHierarchy) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(parts)
        self.small = hierarchy

    def bind(self, hierarchy: LabelHierarchy, trunk: nn.Module, feature_dim: int) -> None:
        """The parts know nothing of each other."""
        super().bind(hierarchy, trunk, feature_dim)
        for part in self.parts.values():
            part.bind(self.small, trunk, feature_dim)  # type: ignore[operator]
        parents = self.small.parents
        inside = torch.arange(self.small.num_auxiliary) - self.small.starts[parents]
        rows = [
            hierarchy.starts[parents] + turn * self.small.sizes[parents] + inside for turn in range(len(self.parts))
        ]
        self.register_buffer("place", torch.stack(rows))  # (parts, K of a part): its label → the module's

    def before_step(self, epoch: int, epochs: int | None, trunk: nn.Module, images: Images) -> None:
        """Clusters are made here."""
        for part in self.parts.values():
            part.before_step(epoch, epochs, trunk, images)  # type: ignore[operator]

    def chosen(self, batch: Batch, features: Tensor) -> Tensor:
        """Each labelling's label, (parts, B)."""
        labels = [part(batch, features).probabilities.argmax(1) for part in self.parts.values()]
        return torch.stack([row[label] for row, label in zip(self.place, labels, strict=True)])

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        chosen = self.chosen(batch, features).T
        shares = torch.zeros(len(chosen), self.hierarchy.num_auxiliary).scatter(1, chosen, 1 / chosen.shape[1])
        return AuxiliaryTarget(shares, shares.new_ones(len(shares)))


class Duels(AtSteps):
    """Asks a network at some of its steps."""

    def __init__(self, steps: list[int], seed: int) -> None:
        super().__init__(steps, seed)
        self.found: dict[str, list[float]] = {}

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """What the gradient thinks of each labelling."""
        assert module.labelled_task is not None
        own, head = module.labelled_task.labeler, module.labelled_task.head
        assert isinstance(own, SideBySide)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        meta, fresh = unseen(list(data.plain_batches("val")), 1000 * self.seed + trainer.global_step)
        slopes = gradient(JointLosses(module), module, fresh, meta, trainer.optimizers[0])
        with torch.no_grad(), kept_buffers(module), evaluation_mode(module):
            features = [module.features(batch.image) for batch in fresh]
            chosen = torch.cat([own.chosen(*pair) for pair in zip(fresh, features, strict=True)], dim=1)
            logits = head(torch.cat(features))
        block = module.hierarchy.mask[torch.cat([batch.primary for batch in fresh])]
        slope = dict(zip(own.parts, slopes.gather(1, chosen.T).T, strict=True))
        for name, place, label in zip(own.parts, own.place, chosen, strict=True):
            elsewhere = torch.ones(logits.shape[1], dtype=torch.bool).scatter(0, place, False)
            first = logits.masked_fill(~block | elsewhere, -torch.inf).argmax(1)
            self.note(f"{name}_known", first == label)
        for pair in DUELS:
            one, other = (slope[name] for name in pair.split("-"))
            self.note(f"{pair}_duel", (one < other) + 0.5 * (one == other))
            self.note(
                f"{pair}_batch", torch.stack([part.mean() for part in (other - one).split(len(fresh[0].image))]) > 0
            )

    def note(self, name: str, values: Tensor) -> None:
        """A share of this poll."""
        self.found.setdefault(name, []).append(float(values.float().mean()))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, few steps")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--networks", type=int, default=5, help="each with a seed of its own")
    parser.add_argument("--seed", type=int, default=0, help="of the first network")
    arguments = parser.parse_args()
    steps, networks = ([30], 2) if arguments.quick else ([500, 1000], arguments.networks)
    header(steps=steps, networks=networks, seed=arguments.seed, root=arguments.root and "given")
    data = small_data(arguments.root)
    means: dict[str, list[float]] = {}
    for seed in range(arguments.seed, arguments.seed + networks):
        parts: dict[str, Labeler] = {
            "human": HumanLabels(),
            "cluster": ClusterLabels(start_epoch=4, seed=seed),
            "looks": ClusterLabels(start_epoch=0, seed=seed),
            "random": RandomLabels(seed=seed),
        }
        duels = Duels(steps, seed)
        hierarchy = LabelHierarchy(tuple(len(parts) * size for size in data.hierarchy.psi))
        train(data, SideBySide(parts, data.hierarchy), duels, hierarchy)
        for name, found in duels.found.items():
            means.setdefault(name, []).append(sum(found) / len(found))
        print(f"network {seed}", flush=True)
    figures: dict[str, float] = {}
    for name, found in means.items():
        mean, error = mean_and_error(found)
        print(f"{name.replace('_', ', '):24s} {mean:.4f} ± {error:.4f}")
        figures |= {name: mean, f"{name}_error": error}
    report({name: round(value, 6) for name, value in figures.items()}, ok=True)


if __name__ == "__main__":
    main()
