"""From a data set and its prices to a plan, and to what it is worth."""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from auxlight.budget.allocate import allocate
from auxlight.budget.estimate import Estimate, Estimator, measured
from auxlight.budget.heuristics import heuristics
from auxlight.budget.images import TaskData, TaskImages
from auxlight.budget.joint import JointTraining, Training
from auxlight.budget.labels import Amount, LabelType, Plan, check_market
from auxlight.budget.ledger import Ledger, described, fingerprint
from auxlight.budget.simulate import bought, compare, relative_gain
from auxlight.errors import InputError
from auxlight.seeding import derive_seed


class BudgetStudy:
    """Which labels to buy with a budget, and what that is worth.

    Every training's result is written into `folder` at once; a study that was interrupted goes on from there.

    Args:
        data: the images; those whose labels are all known are the seed set. If all of them are (a simulation), a
            random part of `seed_size` is.
        types: what can be bought; each is named like a task of the data.
        budget: in units of the costs.
        main: the task for the heuristic "main only"; the first type by default.
        seed_size: images of the seed set, where all labels are known.
        estimator: of relatedness and reduction rates.
        training: of the networks.
        folder: of results and plans.

    Raises:
        InputError: a budget below every cost, a type that is no task of the data, or a seed set as large as the data.
    """

    def __init__(
        self,
        data: TaskData,
        types: Sequence[LabelType],
        budget: Amount,
        main: str | None = None,
        seed_size: int = 200,
        estimator: Estimator | None = None,
        training: Training | None = None,
        folder: str | Path = "logs/budget",
    ) -> None:
        check_market(types, budget)
        data.load()
        self.data = data
        self.types = list(types)
        self.budget = budget
        self.main = main or self.types[0].name
        self.estimator = estimator or Estimator()
        self.training = training or JointTraining()
        self.folder = Path(folder)
        names = [one.name for one in self.types]
        missing = [name for name in names if name not in data.train.labels]
        if missing or self.main not in names:
            raise InputError(
                f"`types` and `main` must name tasks of the data, {sorted(data.train.labels)}. "
                f"Found {(missing or [self.main])[0]!r}."
            )
        if not any(one.priority for one in self.types):
            raise InputError("`priority` must be above 0 for one type at least. Found 0 for all of them.")
        known = torch.stack([data.train.labels[name] >= 0 for name in names]).all(0)
        self.is_simulation = bool(known.all())
        self.seed_size = seed_size if self.is_simulation else int(known.sum())
        if not 0 < self.seed_size < len(data.train):
            lack = next((name for name in names if not (data.train.labels[name] >= 0).any()), None)
            raise InputError(
                f"The seed set must have images with a label of each task, and leave some to be labelled. Found "
                f"{self.seed_size} of {len(data.train)} images{f', and no label of {lack!r}' if lack else ''}."
            )
        self._known = known.nonzero()[:, 0]

    def seed_set(self, seed: int = 0) -> torch.Tensor:
        """(S,) positions of the images whose labels are known beforehand; in a simulation a function of its seed."""
        if not self.is_simulation:
            return self._known
        generator = torch.Generator().manual_seed(derive_seed("seed images", seed))
        return torch.randperm(len(self.data.train), generator=generator)[: self.seed_size].sort().values

    def estimate(self, seed: int = 0) -> Estimate:
        """Relatedness, reduction rates and information."""
        chosen = self.seed_set(seed)
        pool = torch.ones(len(self.data.train), dtype=torch.bool).index_fill_(0, chosen, False)
        names = [one.name for one in self.types]
        train = self.data.train.select(chosen)
        train = TaskImages(train.image, {name: train.labels[name] for name in names})
        return self.estimator(
            train,
            self.data.train.image[pool],
            self.data.classes,
            self.types,
            self.training,
            self.ledger,
            f"estimate {seed}",
        )

    def plans(self, estimate: Estimate, seed: int = 0) -> list[Plan]:
        """TABA's, and the heuristics'."""
        types = self._supplied()
        best = allocate(types, self.budget, estimate.information, estimate.gains())
        return [best, *heuristics(types, self.budget, self.main, estimate.information, seed)]

    def expected(self, plan: Plan, estimate: Estimate) -> float:
        """Σ_i I_i g_i(n_i): what the allocation maximises."""
        values = zip(self.types, estimate.information, estimate.gains(), strict=True)
        return sum(value * float(gain(np.array([plan.counts[one.name]]))[0]) for one, value, gain in values)

    def simulate(self, seeds: int = 5) -> dict[str, Any]:
        """Buy, train on seed and bought labels together, and measure on the test set, over seeds.

        Each seed has a seed set, estimates, orders of the pool and networks of its own; its strategies share them.

        Args:
            seeds: how many.

        Raises:
            InputError: data without a test set, or whose labels are not all known.
        """
        if not self.is_simulation or self.data.test is None:
            raise InputError(
                "A simulation needs data whose labels are all known, with a test set. Found labels that are still to "
                "be bought, or no test set: only a plan can be made."
            )
        if seeds < 1:
            raise InputError(f"`seeds` must be at least 1. Found seeds={seeds}.")
        gains: dict[str, list[float]] = {}
        counts: dict[str, list[dict[str, int]]] = {}
        for seed in tqdm(range(seeds), "simulation", disable=None):
            base = self._trained(seed, None)
            for plan in self.plans(self.estimate(seed), seed):
                metrics = self._trained(seed, plan)
                gains.setdefault(plan.strategy, []).append(relative_gain(metrics, base, self.types))
                counts.setdefault(plan.strategy, []).append(dict(plan.counts))
        return {
            "seeds": seeds,
            "gains": gains,
            "counts": counts,
            "comparison": [row._asdict() for row in compare(gains)],
        }

    @cached_property
    def ledger(self) -> Ledger:
        """Of this study's trainings."""
        plain = {
            "tasks": [one.name for one in self.types],
            "classes": dict(self.data.classes),
            "seed_size": self.seed_size,
            "data": [fingerprint(part) for part in (self.data.train, self.data.test) if part is not None],
            "estimator": described(self.estimator),
            "training": described(self.training),
        }
        return Ledger(self.folder / "trainings.jsonl", plain)

    def _trained(self, seed: int, plan: Plan | None) -> dict[str, float]:
        """Metrics of the test set after training on the seed set and what a plan buys."""
        test = self.data.test
        assert test is not None
        names = [one.name for one in self.types]
        counts = dict(plan.counts) if plan else dict.fromkeys(names, 0)
        purchase = plan or Plan.of(self.types, [0] * len(self.types), check_market(self.types, self.budget), "seed")

        def compute() -> dict[str, float]:
            images = bought(self.data.train, self.seed_set(seed), purchase, seed)
            predicted = self.training(images, self.data.classes, names, derive_seed("final", seed))(test.image)
            return {name: measured(self.estimator.metric, predicted, test, name) for name in names}

        found: dict[str, float] = self.ledger.get(f"final {seed}/{json.dumps(counts)}", compute)
        return found

    def _supplied(self) -> list[LabelType]:
        """The types, with as many labels available as there are images without one."""
        supplied = []
        for one in self.types:
            unknown = int((self.data.train.labels[one.name] < 0).sum())
            left = len(self.data.train) - self.seed_size if self.is_simulation else unknown
            most = left if one.available is None else min(left, one.available)
            supplied.append(LabelType(one.name, one.cost, most, one.priority))
        return supplied
