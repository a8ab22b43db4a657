"""A problem whose helpful labels are known: XOR, where the cluster of an image makes the features linear."""

from functools import partial

import lightning as L
import numpy as np
import torch
from sklearn.metrics import normalized_mutual_info_score
from torch import nn
from torch.optim import SGD, Adam

from auxlight import LabelNetwork, MAXLModule
from auxlight.batch import Batch
from tests.modules.test_maxl import TRAINER

DIMENSIONS, STEPS, BATCH = 20, 400, 50


def points(count, seed):
    """Class 0 lies around (1, 1) and (−1, −1), class 1 around (1, −1) and (−1, 1); 18 further dimensions are noise."""
    generator = torch.Generator().manual_seed(seed)
    cluster = torch.arange(count) % 4
    x = torch.randn(count, DIMENSIONS, generator=generator)
    centre = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])[cluster]
    x[:, :2] = centre + 0.3 * x[:, :2]
    return Batch(x, cluster // 2, cluster, torch.arange(count))


class Trunk(nn.Sequential):
    def __init__(self, feature_dim):
        super().__init__(nn.Linear(DIMENSIONS, feature_dim), nn.ReLU())
        self.feature_dim = feature_dim


def train(seed, make):
    """Primary loss on new points, and how well the labels follow the clusters inside each class."""
    L.seed_everything(seed, verbose=False)
    known, new = points(200, seed), points(2000, 1000 + seed)
    draws = [torch.randperm(200)[:BATCH] for _ in range(STEPS)]
    batches = [Batch(*(part[draw] for part in known)) for draw in draws]
    module = make(trunk=Trunk(16), optimizer=partial(SGD, lr=0.1))
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    L.Trainer(max_epochs=1, **TRAINER).fit(module, loader)
    with torch.no_grad():
        loss = float(module.eval().primary_losses(module(new.image), new).mean())
        target = module.labelled_task.labeler(known, module.features(known.image))
    label = target.probabilities.argmax(1)
    inside = [
        normalized_mutual_info_score(known.auxiliary[known.primary == y], label[known.primary == y]) for y in (0, 1)
    ]
    return loss, float(np.mean(inside))


def maxl(hypergradient=None, **arguments):
    return partial(
        MAXLModule,
        (2, 2),
        labeler=LabelNetwork(trunk=Trunk(32)),
        fused=True,
        hypergradient=hypergradient,
        normalize_hypergradient=True,
        entropy_weight=1.0,
        label_optimizer=partial(Adam, lr=0.01),
        **arguments,
    )
