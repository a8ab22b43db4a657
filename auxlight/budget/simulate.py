"""Buying for real, of labels that are known but hidden: is a plan worth more than the heuristics'?"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from auxlight.budget.images import TaskImages
from auxlight.budget.labels import LabelType, Plan
from auxlight.comparison.statistics import mean_interval
from auxlight.seeding import derive_seed


def bought(train: TaskImages, seed_set: torch.Tensor, plan: Plan, seed: int) -> TaskImages:
    """The training images with the labels of the seed set and those that a plan buys, of random images of the pool.

    Of one seed the plans buy along one order of the pool for each type, so that a larger purchase holds a smaller one.

    Args:
        train: seed and pool, with all labels.
        seed_set: (S,) positions of the seed set.
        plan: what to buy.
        seed: of the orders.
    """
    pool = torch.ones(len(train), dtype=torch.bool).index_fill_(0, seed_set, False).nonzero()[:, 0]
    known = {}
    for name, count in plan.counts.items():
        order = torch.randperm(len(pool), generator=torch.Generator().manual_seed(derive_seed("buy", name, seed)))
        known[name] = torch.cat([seed_set, pool[order[:count]]])
    return train.only(known)


def relative_gain(metrics: Mapping[str, float], base: Mapping[str, float], types: Sequence[LabelType]) -> float:
    """Σ_j ω_j (M_j − M_j⁰) / M_j⁰ / Σ_j ω_j: how much the tasks' metrics rose over those of the seed set alone.

    A metric M⁰ below 0.01 counts as 0.01 in the denominator.
    """
    total = sum(one.priority for one in types)
    rises = (one.priority * (metrics[one.name] - base[one.name]) / max(base[one.name], 0.01) for one in types)
    return sum(rises) / total if total else 0.0


class Comparison(NamedTuple):
    """A strategy over the seeds of a simulation.

    Attributes:
        strategy: its name.
        gain: mean relative gain.
        interval: half of its 95 % confidence interval (Student's t); nan for one seed.
        behind: by how much the first strategy's gain is larger, seed by seed, on average.
        behind_interval: half of that difference's interval; nan for one seed, 0 for the first strategy.
    """

    strategy: str
    gain: float
    interval: float
    behind: float
    behind_interval: float


def compare(gains: Mapping[str, Sequence[float]]) -> list[Comparison]:
    """Means and intervals of each strategy, and of its difference to the first one.

    Args:
        gains: by strategy, the relative gain of each seed, in the same order of seeds.
    """
    first = np.asarray(next(iter(gains.values())))
    rows = []
    for strategy, values in gains.items():
        own = np.asarray(values)
        rows.append(
            Comparison(
                strategy,
                float(own.mean()),
                mean_interval(own).half,
                float((first - own).mean()),
                mean_interval(first - own).half,
            )
        )
    return rows
