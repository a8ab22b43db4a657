"""A problem whose helpful labels are known: XOR, where the cluster of a point makes the features linear."""

from functools import partial

import lightning as L
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import nn
from torch.optim import SGD, Adam

from auxlight import AuxiliaryClassifier, LabelNetwork, LookAheadGradient, MAXLModule, RandomLabels
from auxlight.batch import Batch
from tests.modules.bilevel import TRAINER

SEEDS = range(3)


def points(count, seed):
    """Class 0 lies around (1, 1) and (−1, −1), class 1 around (1, −1) and (−1, 1); 18 further dimensions are noise."""
    x = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    cluster = torch.arange(count) % 4
    centre = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])[cluster]
    x[:, :2] = centre + 0.3 * x[:, :2]
    return Batch(x, cluster // 2, cluster, torch.arange(count))


class Trunk(nn.Sequential):
    def __init__(self, feature_dim):
        super().__init__(nn.Linear(20, feature_dim), nn.ReLU())
        self.feature_dim = feature_dim


def train(seed, make):
    """Primary loss on new points, and how well the labels follow the clusters inside each class."""
    L.seed_everything(seed, verbose=False)
    known, new = points(200, seed), points(2000, 1000 + seed)
    module = make((2, 2), trunk=Trunk(16), aux_weight=3.0, focal_gamma=0.0, optimizer=partial(SGD, lr=0.1))
    module.primary_head, module.labelled_task.head = nn.Linear(16, 2), nn.Linear(16, 4)
    draws = [torch.randperm(200)[:50] for _ in range(250)]
    batches = [Batch(*(part[draw] for part in known)) for draw in draws]
    L.Trainer(max_epochs=1, **TRAINER).fit(module, torch.utils.data.DataLoader(batches, batch_size=None))
    with torch.no_grad():
        loss = float(module.eval().primary_losses(module(new.image), new).mean())
        label = module.labelled_task.labeler(known, module.features(known.image)).probabilities.argmax(1)
    follows = [
        normalized_mutual_info_score(known.auxiliary[own], label[own]) for own in (known.primary == y for y in (0, 1))
    ]
    return loss, sum(follows) / 2


def maxl(*args, hypergradient=None, **arguments):
    return MAXLModule(
        *args,
        labeler=LabelNetwork(trunk=Trunk(32)),
        fused=True,
        hypergradient=hypergradient,
        normalize_hypergradient=True,
        entropy_weight=1.0,
        label_optimizer=partial(Adam, lr=0.01),
        **arguments,
    )


def test_the_label_network_finds_the_helpful_split_and_beats_random_labels():
    for seed in SEEDS:
        random_loss, _ = train(seed, partial(AuxiliaryClassifier, labeler=RandomLabels()))
        loss, follows = train(seed, maxl)
        assert follows >= 0.8, seed
        assert loss < random_loss, seed


class Blind(LookAheadGradient):
    """The right gradients, handed to the wrong points."""

    def __call__(self, problem):
        found = super().__call__(problem)
        return found._replace(
            targets=tuple(slope._replace(probabilities=slope.probabilities.roll(1, 0)) for slope in found.targets)
        )


def test_the_split_comes_from_each_points_own_gradient():
    _, follows = train(0, partial(maxl, hypergradient=Blind()))
    assert follows < 0.5
