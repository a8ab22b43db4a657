"""What does the gradient of one step of look-ahead say of a labelling?

    python benchmarks/label_votes.py [--quick] [--root DIR] [--networks N]

Networks train on human, random and uniform labels, and on clusters of each primary class: in the features of the
untrained network (looks), or in their own after 4 epochs of 50 steps as in the small study (cluster). After 250 and 750
steps the exact look-ahead gradient (MAXL's hypergradient with `meta_split`, and what the influence reward pays for)
says of every label of an image's block what a little more of it would do to the primary loss of 400 held-out images,
after a step on uniform labels (a step on an image's own label would already hold that label, and more of it would look
worse). Of 2,000 images:

- vote, on training images: the share of the block's other labels that are worse than the image's own. 0.5 is chance, 1
  is the best label. By heart a network knows some of its own labels, which moves this figure: random ones need not have
  0.5 here.
- fresh: the same on images that it has not trained on. Random labels must have 0.5 there.
- shuffled: the same as fresh, with the labels exchanged among the images of a primary class. Where it is not 0.5 the
  head prefers some of its labels whatever the image; fresh less shuffled is what the image adds.
- control: the same two, if the held-out images are asked for the loss on the labelling itself in place of the primary
  loss: whether the measurement sees labels at all. A head that is calibrated on them leaves it little to see.
- first order: the same two where the step is so small that it leads nowhere. A step on uniform labels takes from the
  head what it knows, which the gradient may only want back; without a step there is nothing to want back.
- known, on fresh images: the share whose label is the auxiliary head's first choice in its block.
- kinship, on training images: of the gradient inside a primary class (an image's mean over its block taken off, then
  scaled to length 1), the share of the variance that the human sub-classes explain, less what as many random groups
  would (an adjusted R²). 0: images of a sub-class rank labels no more alike than others of the class.

Printed are means over networks and their standard errors; the same of fresh less shuffled (own), and of human less
other labels. Polls draw by chance from the same training and validation images, those of a seed the same ones: errors
are over networks.

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
from label_gradient import FIRST_ORDER, LABELLED, gradient, kinship, known, shuffled, unseen, vote
from small_study import AtSteps, print_means, small_data, train
from torch import Tensor

from auxlight import (
    Batch,
    ClusterLabels,
    HumanLabels,
    Labeler,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from auxlight.modules.joint_losses import JointLosses
from auxlight.networks.buffers import evaluation_mode, kept_buffers

DRAWS = 10  # of labels that change places


class Asked(JointLosses):
    """Whose held-out images have the loss on their labels for a primary loss."""

    def __init__(self, module: MultiHeadVGG, answers: dict[int, Tensor]) -> None:
        super().__init__(module)
        self.answers = answers  # id of a held-out batch → label of each image

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Primary losses (B,), and auxiliary losses (B, K) of every class."""
        primary, auxiliary = super().forward(batch)
        if id(batch) not in self.answers:
            return primary, auxiliary
        return auxiliary.gather(1, self.answers[id(batch)][:, None])[:, 0], auxiliary


class Poll(AtSteps):
    """Asks a network at some of its steps."""

    def measure(self, trainer: L.Trainer, module: MultiHeadVGG) -> None:
        """What the network thinks of its labels."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert module.labelled_task is not None
        own = module.labelled_task.labeler
        optimizer, hierarchy = trainer.optimizers[0], module.hierarchy
        trained = list(itertools.islice(data.training_batches(f"poll {trainer.global_step}", 0), LABELLED))
        meta, fresh = unseen(list(data.plain_batches("val")), 1000 * self.seed + trainer.global_step)
        on_trained = gradient(JointLosses(module), module, trained, meta, optimizer)
        primary, human = (torch.cat([getattr(batch, name) for batch in trained]) for name in ("primary", "auxiliary"))
        self.note("kinship", kinship(on_trained, primary, human, hierarchy.mask[primary]))
        if isinstance(own, UniformLabels):
            return
        asked = Asked(module, {id(batch): decided(module, own, batch) for batch in meta})
        block = hierarchy.mask[primary]
        self.note("vote", vote(on_trained, torch.cat([decided(module, own, batch) for batch in trained]), block))
        primary = torch.cat([batch.primary for batch in fresh])
        block = hierarchy.mask[primary]
        chosen = torch.cat([decided(module, own, batch) for batch in fresh])
        plain = JointLosses(module)
        for name, network, lr in (("", plain, None), ("control_", asked, None), ("first_order_", plain, FIRST_ORDER)):
            slopes = gradient(network, module, fresh, meta, optimizer, lr)
            mixed = [vote(slopes, shuffled(chosen, primary, draw), block) for draw in range(DRAWS)]
            self.note(f"{name}fresh", vote(slopes, chosen, block))
            self.note(f"{name}shuffled", sum(mixed) / DRAWS)
        self.note("known", known(head(module, fresh), chosen, block))


@torch.no_grad()
def decided(module: MultiHeadVGG, labeler: Labeler, batch: Batch) -> Tensor:
    """(B,), the most probable labels."""
    with kept_buffers(module):
        return labeler(batch, module.features(batch.image)).probabilities.argmax(1)


@torch.no_grad()
def head(module: MultiHeadVGG, batches: list[Batch]) -> Tensor:
    """Logits (B, K) of the auxiliary head, in evaluation mode."""
    assert module.labelled_task is not None
    with evaluation_mode(module):
        return torch.cat([module.labelled_task.head(module.features(batch.image)) for batch in batches])


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
    means: dict[str, list[float]] = {}
    for seed in range(networks):
        makes: dict[str, Labeler] = {
            "human": HumanLabels(),
            "random": RandomLabels(seed=seed),
            "uniform": UniformLabels(),
            "looks": ClusterLabels(start_epoch=0, seed=seed),
            "cluster": ClusterLabels(start_epoch=4, seed=seed),
        }
        for trained_on, labeler in makes.items():
            poll = Poll(steps, seed)
            train(data, labeler, poll)
            for name, found in poll.found.items():
                means.setdefault(f"{trained_on}_{name}", []).append(sum(found) / len(found))
            print(f"network {seed}, trained on {trained_on} labels", flush=True)
    for name, kind in itertools.product(makes, ("", "control_", "first_order_")):
        if name != "uniform":
            pairs = zip(means[f"{name}_{kind}fresh"], means[f"{name}_{kind}shuffled"], strict=True)
            means[f"{name}_{kind}own"] = [fresh - mixed for fresh, mixed in pairs]
    shown = ("vote", "fresh", "control_fresh", "first_order_fresh", "own", "known")
    for other, name in itertools.product(("random", "looks", "cluster"), shown):
        pairs = zip(means[f"human_{name}"], means[f"{other}_{name}"], strict=True)
        means[f"human-{other}_{name}"] = [human - less for human, less in pairs]
    print_means(means, "+.4f", lambda name: f"trained on {name.replace('_', ' '):38s}")


if __name__ == "__main__":
    main()
