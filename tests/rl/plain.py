"""A main network of plain PyTorch, for a game without Lightning."""

import copy

import torch
from torch import nn

from auxlight.functional import focal_loss
from tests.rl.toy import TinyTrunk


class PlainLearner:
    """Trunk, two heads with batch norm between, SGD with momentum."""

    def __init__(self, num_primary, num_auxiliary, lr=0.1):
        torch.manual_seed(5)
        self.trunk = nn.Sequential(TinyTrunk(), nn.BatchNorm1d(16))
        self.primary, self.auxiliary = nn.Linear(16, num_primary), nn.Linear(16, num_auxiliary)
        self.parts = nn.ModuleList([self.trunk, self.primary, self.auxiliary])
        self.optimizer = torch.optim.SGD(self.parts.parameters(), lr=lr, momentum=0.9)
        self.canonical = None
        self.left = []  # states that were given up

    def features(self, batch):
        return self.trunk(batch.image)

    def train_on(self, batch, target):
        features = self.trunk(batch.image)
        auxiliary = focal_loss(self.auxiliary(features), target.probabilities, 2.0)
        loss = focal_loss(self.primary(features), batch.primary, 2.0).mean() + (target.weight * auxiliary).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    @torch.no_grad()
    def primary_loss(self, batch):
        self.parts.eval()
        loss = focal_loss(self.primary(self.trunk(batch.image)), batch.primary, 2.0).mean()
        self.parts.train()
        return float(loss)

    def state(self):
        return copy.deepcopy((self.parts.state_dict(), self.optimizer.state_dict()))

    def snapshot(self):
        self.canonical = self.state()

    def restore(self):
        self.left.append(self.state())
        if self.canonical is not None:
            network, optimizer = copy.deepcopy(self.canonical)
            self.parts.load_state_dict(network)
            self.optimizer.load_state_dict(optimizer)
