"""Which of several labellings does the gradient of one step want more of?

    python benchmarks/label_duel.py [--quick] [--root DIR] [--networks N] [--seed S]

Each network trains on four labellings at once, an equal share of the target each, in places of their own: human labels;
clusters of each primary class in the network's own features after 4 epochs of 50 steps, as in the small study, which
have no share before; clusters in those of the untrained network (looks); random labels. After 500 and 1,000 steps the
exact look-ahead gradient (MAXL's hypergradient with `meta_split`, and what the influence reward pays for) says what a
little more of each label would do to the primary loss of held-out images, after a step on uniform labels. Of 2,000
images that the network has not trained on:

- duel: the share for which the first labelling's label is the better one; batch: the share of batches of 100 for which
  its labels are the better ones on average.
- shuffled: the same two with the labels of each labelling exchanged among the images of a primary class. What the duel
  has beyond it, it has by the images; the rest is a preference for some rows of the head, whatever the image.
- first order: the same two as duel and batch where the step is so small that it leads nowhere. A step on uniform labels
  takes from the head what it knows, which the gradient may only want back.
- known: the share whose label is the auxiliary head's first choice among those of its labelling and block.
- norm: the mean length of the labels' rows in the head's last layer.

Printed are means over networks, and their standard errors. All networks have the same split of the data.

Real CIFAR-100 from a mirror in DIR, 3 primary classes, 5,000 images, VGG11 at a quarter of its width, a constant rate;
the embedded digits, and fewer images, without it. There is no target.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import header
from label_gradient import FIRST_ORDER, gradient, known, preferred, shuffled, unseen
from small_study import AtSteps, print_means, small_data, train
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

DRAWS = 10  # of labels that change places
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
        inside = self.small.to_relative(torch.arange(self.small.num_auxiliary))
        rows = [
            hierarchy.starts[parents] + turn * self.small.sizes[parents] + inside for turn in range(len(self.parts))
        ]
        self.register_buffer("place", torch.stack(rows))  # (parts, K of a part): its label → the module's

    def before_step(self, epoch: int, epochs: int | None, trunk: nn.Module, images: Images) -> None:
        """Clusters are made here."""
        for part in self.parts.values():
            part.before_step(epoch, epochs, trunk, images)  # type: ignore[operator]

    def chosen(self, batch: Batch, features: Tensor) -> tuple[Tensor, Tensor]:
        """Each labelling's label and weight, (parts, B) both."""
        targets = [part(batch, features) for part in self.parts.values()]
        labels = [row[target.probabilities.argmax(1)] for row, target in zip(self.place, targets, strict=True)]
        return torch.stack(labels), torch.stack([target.weight for target in targets])

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        chosen, weight = self.chosen(batch, features)
        shares = torch.zeros(len(batch.primary), self.hierarchy.num_auxiliary)
        shares = shares.scatter(1, chosen.T, (weight / weight.sum(0)).T)
        return AuxiliaryTarget(shares, shares.new_ones(len(shares)))


class Duels(AtSteps):
    """Asks a network at some of its steps."""

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """What the gradient thinks of each labelling."""
        assert module.labelled_task is not None
        own, head = module.labelled_task.labeler, module.labelled_task.head
        assert isinstance(own, SideBySide)
        rows = list(head.parameters())[-2]  # the last layer's
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        meta, fresh = unseen(list(data.plain_batches("val")), 1000 * self.seed + trainer.global_step)
        with torch.no_grad(), kept_buffers(module), evaluation_mode(module):
            features = [module.features(batch.image) for batch in fresh]
            answers = [own.chosen(*pair) for pair in zip(fresh, features, strict=True)]
            logits = head(torch.cat(features))
        assert all(weight.min() > 0 for _, weight in answers)
        chosen = dict(zip(own.parts, torch.cat([label for label, _ in answers], dim=1), strict=True))
        primary = torch.cat([batch.primary for batch in fresh])
        for name, place in zip(own.parts, own.place, strict=True):
            there = torch.zeros(logits.shape[1], dtype=torch.bool).scatter(0, place, True)
            self.note(f"{name}_known", known(logits, chosen[name], module.hierarchy.mask[primary] & there))
            self.note(f"{name}_norm", float(rows[chosen[name]].norm(dim=1).mean()))
        sizes = [len(batch.image) for batch in fresh]
        for kind, lr in (("", None), ("first_order_", FIRST_ORDER)):
            slopes = gradient(JointLosses(module), module, fresh, meta, trainer.optimizers[0], lr)
            self.fight(kind, [{name: slopes.gather(1, label[:, None])[:, 0] for name, label in chosen.items()}], sizes)
            draws = []
            for draw in range(DRAWS):
                mixed = {name: shuffled(label, primary, draw) for name, label in chosen.items()}
                draws.append({name: slopes.gather(1, label[:, None])[:, 0] for name, label in mixed.items()})
            self.fight(f"{kind}shuffled_", draws, sizes)

    def fight(self, kind: str, draws: list[dict[str, Tensor]], sizes: list[int]) -> None:
        """All duels, by each labelling's slopes (B,); means over the draws."""
        for pair in DUELS:
            one, other = pair.split("-")
            shares = [preferred(slopes[one], slopes[other], sizes) for slopes in draws]
            for name, values in zip(("duel", "batch"), zip(*shares, strict=True), strict=True):
                self.note(f"{pair}_{kind}{name}", sum(values) / len(values))


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
    for pair, kind, name in itertools.product(DUELS, ("", "first_order_"), ("duel", "batch")):
        pairs = zip(means[f"{pair}_{kind}{name}"], means[f"{pair}_{kind}shuffled_{name}"], strict=True)
        means[f"{pair}_{kind}own_{name}"] = [share - mixed for share, mixed in pairs]
    print_means(means, ".4f", lambda name: f"{name.replace('_', ' '):44s}")


if __name__ == "__main__":
    main()
