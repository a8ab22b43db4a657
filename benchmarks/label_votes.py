"""Does a step of look-ahead vote for the labels that a network trains on, or for labels that like images share?

    python benchmarks/label_votes.py [--quick] [--root DIR] [--networks N]

Networks train on human, random and uniform labels. After 250 and 750 steps the exact look-ahead gradient (MAXL's
hypergradient with `meta_split`, and what the influence reward pays for) says of every label of an image's block what a
little more of it would do to the primary loss after the step, on held-out images. Of 2,000 images each:

- vote, on training images: the share of the block's other labels that are worse than the image's own. 0.5 is chance, 1
  is the best label. By heart a network knows some of its own labels, and held-out images may vote against that.
- fresh: the same on images that it has not trained on.
- control: the same as fresh, if the held-out images are asked for the loss on the labelling itself in place of the
  primary loss. A measurement that works must find human labels there.
- kinship, on training images: the share of the gradient's variance inside a primary class (an image's mean over its
  block taken off) that the human sub-classes explain, less what as many random groups would (an adjusted R²). 0: images
  of one human sub-class want a label in common no more than any others do.

Each poll has images of its own. Printed are means over networks and their standard errors.

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
from small_study import AtSteps, endless, mean_and_error, small_data, train
from torch import Tensor

from auxlight import (
    Batch,
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

LABELLED, HELD_OUT = 20, 4  # batches of a poll
Found = dict[str, list[float]]  # figure → each poll's


class Asked(JointLosses):
    """Whose held-out images have the loss on their labels for a primary loss."""

    def __init__(self, module: MultiHeadVGG, labels: dict[int, Tensor]) -> None:
        super().__init__(module)
        self.labels = labels  # id of a held-out batch → label of each image

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Primary losses (B,), and auxiliary losses (B, K) of every class."""
        primary, auxiliary = super().forward(batch)
        if id(batch) not in self.labels:
            return primary, auxiliary
        return auxiliary.gather(1, self.labels[id(batch)][:, None])[:, 0], auxiliary


class Poll(AtSteps):
    """Asks a network at some of its steps."""

    def __init__(self, steps: list[int], seed: int) -> None:
        super().__init__(steps, seed)
        self.found: Found = {}

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """What the network thinks of its labels."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert module.labelled_task is not None
        own = module.labelled_task.labeler
        step, hierarchy = LookAhead(trainer.optimizers[0]), module.hierarchy
        trained = list(itertools.islice(endless(data, f"poll {trainer.global_step}"), LABELLED))
        meta, fresh = self.unseen(list(data.plain_batches("val")), trainer.global_step)
        on_trained = slopes(JointLosses(module), module, trained, meta, step)
        primary, human = (torch.cat([getattr(batch, name) for batch in trained]) for name in ("primary", "auxiliary"))
        self.note("kinship", kinship(on_trained, primary, human, hierarchy.mask[primary]))
        if isinstance(own, UniformLabels):
            return
        asked = Asked(module, {id(batch): labels(module, own, batch) for batch in meta})
        for name, found, batches in (
            ("vote", on_trained, trained),
            ("fresh", slopes(JointLosses(module), module, fresh, meta, step), fresh),
            ("control", slopes(asked, module, fresh, meta, step), fresh),
        ):
            block = hierarchy.mask[torch.cat([batch.primary for batch in batches])]
            self.note(name, vote(found, torch.cat([labels(module, own, batch) for batch in batches]), block))

    def note(self, name: str, value: float) -> None:
        """A figure of this poll."""
        self.found.setdefault(name, []).append(value)

    def unseen(self, batches: list[Batch], step: int) -> tuple[list[Batch], list[Batch]]:
        """Some to be asked and some to be labelled, this poll's own choice."""
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        chosen = [batches[number] for number in torch.randperm(len(batches), generator=generator).tolist()]
        return chosen[:HELD_OUT], chosen[HELD_OUT : HELD_OUT + LABELLED]


def slopes(
    network: JointLosses, module: MultiHeadVGG, batches: list[Batch], meta: list[Batch], step: LookAhead
) -> Tensor:
    """∂L_pri(θ⁺)/∂t (B, K), of each batch's own step, at the targets that the network trains on."""
    assert module.labelled_task is not None
    found = []
    for batch in batches:
        with kept_buffers(module):
            with torch.no_grad():
                target = module.labelled_task.labeler(batch, module.features(batch.image))
            problem = MetaProblem(network, [batch], [target], meta, step, module.aux_weight)
            found.append(LookAheadGradient()(problem).targets[0].probabilities)
    return torch.cat(found)


@torch.no_grad()
def labels(module: MultiHeadVGG, labeler: Labeler, batch: Batch) -> Tensor:
    """(B,), the most probable ones."""
    with kept_buffers(module):
        return labeler(batch, module.features(batch.image)).probabilities.argmax(1)


def vote(slopes: Tensor, chosen: Tensor, block: Tensor) -> float:
    """Share of the block's other labels that would do less for the loss than the image's own; ties half."""
    own = slopes.gather(1, chosen[:, None])
    others = block.clone().scatter(1, chosen[:, None], False)
    worse = ((slopes > own) + 0.5 * (slopes == own)) * others
    return float((worse.sum(1) / others.sum(1)).mean())


def kinship(slopes: Tensor, primary: Tensor, human: Tensor, block: Tensor) -> float:
    """Adjusted R² of the human sub-classes inside the primary classes."""
    centred = (slopes - (slopes * block).sum(1, keepdim=True) / block.sum(1, keepdim=True)) * block
    (inside, free_inside), (total, free_total) = spread(centred.double(), human), spread(centred.double(), primary)
    return 1 - (inside / free_inside) / (total / free_total)


def spread(values: Tensor, group: Tensor) -> tuple[float, int]:
    """Sum of squares about the groups' means, and its degrees of freedom."""
    _, member = group.unique(return_inverse=True)
    size = member.bincount()
    means = torch.zeros(len(size), values.shape[1], dtype=values.dtype).index_add(0, member, values) / size[:, None]
    return float((values - means[member]).square().sum()), len(values) - len(size)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, few steps")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--networks", type=int, default=5, help="of each labelling, each with a seed of its own")
    arguments = parser.parse_args()
    steps, networks = ([30], 2) if arguments.quick else ([250, 750], arguments.networks)
    header(steps=steps, networks=networks, root=arguments.root and "given")
    data = small_data(arguments.root)
    means: Found = {}
    for seed in range(networks):
        makes: dict[str, Labeler] = {
            "human": HumanLabels(),
            "random": RandomLabels(seed=seed),
            "uniform": UniformLabels(),
        }
        for trained_on, labeler in makes.items():
            poll = Poll(steps, seed)
            train(data, labeler, poll)
            for name, found in poll.found.items():
                means.setdefault(f"{trained_on}_{name}", []).append(sum(found) / len(found))
            print(f"network {seed}, trained on {trained_on} labels", flush=True)
    figures: dict[str, float] = {}
    for name, found in means.items():
        mean, error = mean_and_error(found)
        print(f"trained on {name.replace('_', ' labels, '):30s} {mean:+.4f} ± {error:.4f}")
        figures |= {name: mean, f"{name}_error": error}
    report({name: round(value, 6) for name, value in figures.items()}, ok=True)


if __name__ == "__main__":
    main()
