"""Small problems on which rules are tried out without a LightningModule."""

import torch
from torch import nn

from auxlight.combiners import StepContext, TaskLosses


class Network(nn.Module):
    """A shared layer, and a head for each of M regression tasks; targets are given with the input."""

    def __init__(self, tasks=3, seed=0, dtype=torch.float64):
        super().__init__()
        torch.manual_seed(seed)
        self.trunk = nn.Sequential(nn.Linear(4, 5), nn.Tanh()).to(dtype)
        self.heads = nn.ModuleList([nn.Linear(5, 1) for _ in range(tasks)]).to(dtype)
        self.dtype = dtype

    @property
    def shared(self):
        return list(self.trunk.parameters())

    @property
    def own(self):
        return list(self.heads.parameters())

    def losses(self, data, scales=None, weights=None):
        x, y = data
        features = self.trunk(x)
        rows = [(head(features)[:, 0] - y[:, m]).square() for m, head in enumerate(self.heads)]
        if scales is not None:
            rows = [scale * row for scale, row in zip(scales, rows, strict=True)]
        weights = [torch.ones_like(row) for row in rows[1:]] if weights is None else weights
        return TaskLosses(rows[0], tuple(rows[1:]), tuple(weights))

    def data(self, seed, count=6):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(count, 4, generator=generator, dtype=torch.float64)
        y = torch.randn(count, len(self.heads), generator=generator, dtype=torch.float64)
        return x.to(self.dtype), y.to(self.dtype)

    def context(self, further=1, judge=2, **arguments):
        def judged():
            return self.losses(self.data(judge)).primary.mean()

        return StepContext(
            self.shared, self.own, another=lambda: self.losses(self.data(further)), judged=judged, **arguments
        )

    def rows(self, data, **arguments):
        """Each task's gradient for the shared parameters (M, P), by a backward pass of its own."""
        rows = []
        for m in range(len(self.heads)):
            self.zero_grad()
            losses = self.losses(data, **arguments)
            ((losses.primary, *losses.auxiliary)[m]).mean().backward()
            rows.append(torch.cat([p.grad.flatten() for p in self.shared]))
        self.zero_grad()
        return torch.stack(rows)


def names(tasks):
    return ["primary", *(f"task{m}" for m in range(1, tasks))]


def step(network, combiner, data, context=None, **arguments):
    """The gradients that a combiner's scalar leaves: shared (P,), and of each head's weight."""
    network.zero_grad()
    loss = combiner(network.losses(data, **arguments), context or network.context())
    loss.backward()
    shared = torch.cat([p.grad.flatten() for p in network.shared])
    own = [None if head.weight.grad is None else head.weight.grad.clone() for head in network.heads]
    network.zero_grad()
    return shared, own, loss.detach()
