"""What a comparison runs: methods × data × seeds, each a command line of `auxlight fit`."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from auxlight.errors import InputError


@dataclass(frozen=True)
class Method:
    """A method or a control.

    Args:
        configs: YAML files, the later ones laid over the earlier ones.
        arguments: further arguments of `auxlight fit`, such as ``--model.aux_weight=4``.
        control: whether it is one of the controls that methods are compared with.
    """

    configs: list[str]
    arguments: list[str] = field(default_factory=list)
    control: bool = False


@dataclass(frozen=True)
class Common:
    """What all runs of a kind share: a data set, or a scale.

    Args:
        configs: YAML files, laid over the method's.
        arguments: further arguments.
    """

    configs: list[str] = field(default_factory=list)
    arguments: list[str] = field(default_factory=list)


class Run(NamedTuple):
    """One fit.

    Attributes:
        method: its name.
        data: name of its data set.
        seed: of `seed_everything`.
        words: of `auxlight fit`, without the seed and the folder.
        folder: of its own.
    """

    method: str
    data: str
    seed: int
    words: tuple[str, ...]
    folder: Path

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.data}/{self.method}/seed {self.seed}"

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return self.folder / "result.json"


class Comparison:
    """Methods × data sets × seeds.

    Args:
        methods: by name; at least one of them a control.
        seeds: of `seed_everything`; every method runs with each, so that differences are paired.
        data: overlays by name; by default the methods' own data.
        common: laid over method and data, such as a scale.
        reference: the control that all are compared with, beside the best one; by default the first control.
        folder: of runs, table and report.

    Raises:
        InputError: no method, no control, no seed, or a reference that is no control.
    """

    def __init__(
        self,
        methods: dict[str, Method],
        seeds: Sequence[int] = (0, 1, 2),
        data: dict[str, Common] | None = None,
        common: Common | None = None,
        reference: str | None = None,
        folder: str | Path = "logs/compare",
    ) -> None:
        self.methods = methods
        self.seeds = list(seeds)
        self.data = data or {"data": Common()}
        self.common = common or Common()
        self.folder = Path(folder)
        if not methods or not self.controls:
            raise InputError(
                "`methods` must hold one or more, one of them with `control: true`. "
                f"Found {sorted(methods)}, none a control."
            )
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"`seeds` must be different numbers ≥ 0. Found seeds={self.seeds}.")
        self.reference = reference or self.controls[0]
        if self.reference not in self.controls:
            raise InputError(f"`reference` must be a control, {self.controls}. Found reference={self.reference!r}.")
        for path in self._files():
            if not Path(path).is_file():
                raise InputError(f"`configs` must be files. Found none at {path}.")

    @property
    def controls(self) -> list[str]:
        """Names of the controls."""
        return [name for name, method in self.methods.items() if method.control]

    def runs(self) -> list[Run]:
        """All of them, seed by seed, so that a study that is cut short has all methods of its first seeds."""
        return [self._run(data, method, seed) for seed in self.seeds for data in self.data for method in self.methods]

    def _run(self, data: str, method: str, seed: int) -> Run:
        parts = (self.methods[method], self.data[data], self.common)
        configs = [path for part in parts for path in part.configs]
        arguments = [word for part in parts for word in part.arguments]
        words = (*(word for path in configs for word in ("--config", path)), *arguments)
        # What the configs say belongs to the run: one that has changed makes another run of it.
        texts = [Path(path).read_text() for path in configs]
        digest = hashlib.sha256(json.dumps([texts, arguments]).encode()).hexdigest()[:10]
        return Run(method, data, seed, words, self.folder / "runs" / data / method / digest / f"seed_{seed}")

    def _files(self) -> list[str]:
        parts: list[Method | Common] = [*self.methods.values(), *self.data.values(), self.common]
        return [path for part in parts for path in part.configs]
