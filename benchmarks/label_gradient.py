"""What the gradient of one step says of labels, and how to count it."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from auxlight import Batch, LookAheadGradient, UniformLabels
from auxlight.hypergradient import MetaProblem
from auxlight.lookahead import LookAhead
from auxlight.modules import AuxiliaryClassifier
from auxlight.modules.joint_losses import JointLosses
from auxlight.networks.buffers import kept_buffers

LABELLED, HELD_OUT = 20, 4  # batches of a poll
FIRST_ORDER = 1e-4  # a rate so small that the step leads nowhere


def unseen(batches: list[Batch], seed: int) -> tuple[list[Batch], list[Batch]]:
    """Some to be asked and some to be labelled, by chance."""
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed)).tolist()
    asked = min(HELD_OUT, len(order) // 2)
    return [batches[i] for i in order[:asked]], [batches[i] for i in order[asked : asked + LABELLED]]


def gradient(
    network: JointLosses,
    module: AuxiliaryClassifier,
    batches: list[Batch],
    meta: list[Batch],
    optimizer: Optimizer,
    lr: float | None = None,
) -> Tensor:
    """∂L_pri(θ⁺)/∂t (B, K), of each batch's own step on uniform labels: what a little more of a label does to the loss.

    Args:
        network: the module's losses, or others, of which `meta` has the primary one.
        module: the main network.
        batches: the images whose labels are judged.
        meta: the images that judge.
        optimizer: the main network's.
        lr: of the step; its own by default. A tiny one leaves L_pri's gradient where the network is.
    """
    uniform, found = UniformLabels(), []
    uniform.bind(module.hierarchy, module.trunk, module.feature_dim)
    for batch in batches:
        target = uniform(batch, batch.image)  # whose features it does not look at
        with kept_buffers(module):
            problem = MetaProblem(network, [batch], [target], meta, LookAhead(optimizer, lr), module.aux_weight)
            found.append(LookAheadGradient()(problem).targets[0].probabilities)
    return torch.cat(found)


def shuffled(chosen: Tensor, primary: Tensor, seed: int) -> Tensor:
    """The same labels (B,), exchanged by chance among the images of a primary class."""
    order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))
    mixed = torch.empty_like(chosen)
    mixed[primary.argsort(stable=True)] = chosen[order[primary[order].argsort(stable=True)]]
    return mixed


def preferred(one: Tensor, other: Tensor, sizes: Sequence[int]) -> tuple[float, float]:
    """Share of images, and of batches of these sizes, in which the first slope (B,) is lower; ties count half."""
    gap = other - one
    means = torch.stack([part.mean() for part in gap.split(list(sizes))])
    return tuple(float((0.5 + 0.5 * values.sign()).mean()) for values in (gap, means))  # type: ignore[return-value]


def known(logits: Tensor, chosen: Tensor, places: Tensor) -> float:
    """Share of images whose chosen label has the highest logit among its places, (B, K) bool."""
    return float((logits.masked_fill(~places, -torch.inf).argmax(1) == chosen).float().mean())
