"""The same tuning for every method and every control."""

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from auxlight.errors import InputError
from auxlight.seeding import derive_seed

DRAWS = 1000  # of which the most even one is taken
Value = str | int | float | bool
Setting = dict[str, Value]  # argument of `auxlight fit` → value


@dataclass(frozen=True)
class Tuning:
    """Before the comparison: of so many settings each method and each control takes the one that validates best.

    Args:
        grid: arguments of `auxlight fit` and the values to try, such as ``model.optimizer.init_args.lr: [0.01, 0.05]``;
            a method's own `grid` is laid over it, an empty list takes an argument out.
        budget: settings that each method tries: of its grid so many that hold each value, and each pair of values,
            about equally often; or all of it where there are no more.
        seeds: that each setting is tried with; others than the comparison's.

    Raises:
        InputError: a budget below 1, no seed, or one twice.
    """

    grid: dict[str, list[Value]] = field(default_factory=dict)
    budget: int = 8
    seeds: list[int] = field(default_factory=lambda: [1000])

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise InputError(f"`budget` of the tuning must be at least 1. Found budget={self.budget}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"`seeds` of the tuning must be different ones, one at least. Found seeds={self.seeds}.")

    def settings(self, own: Mapping[str, Sequence[Value]]) -> list[Setting]:
        """What a method tries; the same draw whenever it is asked for.

        Args:
            own: the method's own grid.
        """
        grid = {key: list(dict.fromkeys(values)) for key, values in {**self.grid, **own}.items() if values}
        every = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
        if len(every) <= self.budget:
            return every
        rng = np.random.default_rng(derive_seed("tuning", json.dumps(grid)))
        draws = [sorted(rng.choice(len(every), self.budget, replace=False)) for _ in range(DRAWS)]
        return min(([every[i] for i in draw] for draw in draws), key=_unevenness)


def _unevenness(settings: list[Setting]) -> int:
    """Sum of squares of how often values, and pairs of values, are tried: least where all are about equally often."""
    count = Counter(some for one in settings for n in (1, 2) for some in itertools.combinations(one.items(), n))
    return sum(times * times for times in count.values())


def as_arguments(setting: Setting) -> list[str]:
    """On the command line."""
    return [f"--{key}={json.dumps(value) if isinstance(value, bool) else value}" for key, value in setting.items()]


def validation_of(result: Path) -> float:
    """The best validation accuracy of a finished run."""
    return float(json.loads(result.read_text())["validation"])
