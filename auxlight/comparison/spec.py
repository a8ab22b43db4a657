"""What a comparison runs: methods × data × seeds, each a command line of `auxlight fit`."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from auxlight.comparison.tuning import Setting, Tuning, Value, as_arguments, validation_of
from auxlight.errors import InputError

PAPERS_EPOCHS = 15


@dataclass(frozen=True)
class Method:
    """A method or a control.

    Args:
        configs: YAML files, the later ones laid over the earlier ones.
        arguments: further arguments of `auxlight fit`, such as ``--model.aux_weight=4``.
        control: whether it is one of the controls that methods are compared with.
        grid: of the tuning, laid over the shared one.
    """

    configs: list[str]
    arguments: list[str] = field(default_factory=list)
    control: bool = False
    grid: dict[str, list[Value]] = field(default_factory=dict)


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
        files: YAML and JSON files that the words name, and the SHA-256 of what they held when the run was made up.
        folder: of its own.
        setting: of the tuning; empty without one.
        reads_test: whether it is tested in the end; not while settings are chosen.
        last_epochs: see `RunRecord`.
    """

    method: str
    data: str
    seed: int
    words: tuple[str, ...]
    files: dict[str, str]
    folder: Path
    setting: Setting
    reads_test: bool
    last_epochs: int

    @property
    def name(self) -> str:
        """For messages."""
        setting = "".join(f", {key} {value}" for key, value in self.setting.items())
        return f"{'' if self.reads_test else 'tuning '}{self.data}/{self.method}/seed {self.seed}{setting}"

    @property
    def stage(self) -> str:
        """The folder above its data set: "runs" or "tuning"."""
        return "runs" if self.reads_test else "tuning"

    @property
    def key(self) -> str:
        """Its folder, from the comparison's."""
        return "/".join(self.folder.parts[-5:])

    @property
    def result(self) -> Path:
        """Where its result lies once it is finished."""
        return self.folder / "result.json"


@cache
def _parsed(text: bytes) -> Any:
    return yaml.safe_load(text)


def _files(arguments: Sequence[str]) -> list[str]:
    """Configs of parts of the command line, as in ``--data=small.yaml``."""
    values = [word.partition("=")[2] if word.startswith("--") else word for word in arguments]
    return [value for value in values if value.endswith((".yaml", ".yml", ".json")) and Path(value).is_file()]


class Comparison:
    """Methods × data sets × seeds.

    Args:
        methods: by name; at least one of them a control.
        seeds: of `seed_everything`; every method runs with each, so that differences are paired.
        data: overlays by name; by default the methods' own data.
        common: laid over method and data, such as a scale.
        reference: the control that all are compared with, beside the best one; by default the first control.
        tuning: what each method may choose first, by validation; by default nothing.
        protocol: "validation": the test accuracy of the checkpoint that validated best, read once; "paper": the mean
            test accuracy after each of the last 15 epochs, as the RL-AUX paper reports it.
        images_by_seed: each seed, the tuning's too, draws training and validation images of its own (``data.seed``), so
            that intervals and p are also of other images; by default all seeds share theirs. The test images stay the
            same, and draws overlap: without `num_train` they differ by little more than the validation images.
        folder: of runs, table and report.
        archive: a further folder, for version control: the table of all finished runs and that of their epochs are
            kept there, and what is in them does not run again.

    Raises:
        InputError: no method, no control, no seed, a reference that is no control, a method's grid without a tuning, or
            a `data.seed` beside `images_by_seed`.
    """

    def __init__(
        self,
        methods: dict[str, Method],
        seeds: Sequence[int] = (0, 1, 2),
        data: dict[str, Common] | None = None,
        common: Common | None = None,
        reference: str | None = None,
        tuning: Tuning | None = None,
        protocol: Literal["validation", "paper"] = "validation",
        images_by_seed: bool = False,
        folder: str | Path = "logs/compare",
        archive: str | Path | None = None,
    ) -> None:
        self.methods = methods
        self.seeds = list(seeds)
        self.data = data or {"data": Common()}
        self.common = common or Common()
        self.tuning = tuning
        self.protocol = protocol
        self.images_by_seed = images_by_seed
        self.folder = Path(folder)
        self.archive = None if archive is None else Path(archive)
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
        if tuning is not None and set(tuning.seeds) & set(self.seeds):
            raise InputError(
                "`seeds` of the tuning must be others than those of the comparison, which are to be fresh. "
                f"Found both with {sorted(set(tuning.seeds) & set(self.seeds))}."
            )
        if tuning is None and any(method.grid for method in methods.values()):
            raise InputError(
                "`grid` of a method is laid over that of a `tuning`, which must be there. Found none: "
                "is a further --config missing, which has it?"
            )
        for name in (*methods, *self.data):
            if not re.fullmatch(r"\w[\w.-]*", name):
                raise InputError(f"Names of methods and data must be of letters, digits, `_.-`. Found {name!r}.")
        for part in self._parts():
            for path in part.configs:
                if not Path(path).is_file():
                    raise InputError(f"`configs` must be files. Found none at {path}.")
            for word in part.arguments:
                if word.split("=")[0] in ("--config", "-c"):  # a run belongs to what its `configs` say
                    raise InputError(f"`arguments` must name no config: `configs` has those. Found {word!r}.")
        if images_by_seed:
            grids = [*(method.grid for method in methods.values()), *([tuning.grid] if tuning else [])]
            keys = [key for grid in grids for key in grid]
            keys += [word.split("=")[0].lstrip("-") for part in self._parts() for word in part.arguments]
            if {"data.seed", "data.init_args.seed"} & set(keys):
                raise InputError("`images_by_seed` sets `data.seed` of each run: one of them only. Found both.")

    @property
    def controls(self) -> list[str]:
        """Names of the controls."""
        return [name for name, method in self.methods.items() if method.control]

    def runs(self) -> list[Run]:
        """Those of the comparison, seed by seed, so that one that is cut short has all methods of its first seeds.

        Raises:
            InputError: before the tuning's runs are finished.
        """
        waiting = [run for run in self.tuning_runs() if not run.result.is_file()]
        if waiting:
            raise InputError(f"Settings can be chosen once all were tried. Found unfinished: {waiting[0].name}.")
        return self.runs_so_far()

    def runs_so_far(self) -> list[Run]:
        """The same, of those methods alone that have been tuned."""
        chosen = {(data, method): self.chosen(data, method) for data in self.data for method in self.methods}
        return [
            self._run(data, method, seed, setting, True)
            for seed in self.seeds
            for (data, method), setting in chosen.items()
            if setting is not None
        ]

    def tuning_runs(self) -> list[Run]:
        """Those that settings are chosen by; none without a tuning. The test set is not read."""
        if self.tuning is None:
            return []
        return [
            self._run(data, method, seed, setting, False)
            for seed in self.tuning.seeds
            for data in self.data
            for method in self.methods
            if len(self.settings(method)) > 1  # else there is nothing to choose
            for setting in self.settings(method)
        ]

    def known_runs(self) -> list[Run]:
        """Those of the tuning, and those of the methods that have been tuned."""
        return [*self.tuning_runs(), *self.runs_so_far()]

    def settings(self, method: str) -> list[Setting]:
        """What a method may choose from."""
        return [{}] if self.tuning is None else self.tuning.settings(self.methods[method].grid)

    def chosen(self, data: str, method: str) -> Setting | None:
        """The setting of the highest mean validation accuracy over the tuning's seeds; the first one of equals.

        None while runs of the tuning are not finished.
        """
        settings = self.settings(method)
        if self.tuning is None or len(settings) == 1:
            return settings[0]
        means = []
        for setting in settings:
            results = [self._run(data, method, seed, setting, False).result for seed in self.tuning.seeds]
            if not all(result.is_file() for result in results):
                return None
            means.append(sum(validation_of(result) for result in results) / len(results))
        return settings[means.index(max(means))]

    def _run(self, data: str, method: str, seed: int, setting: Setting, reads_test: bool) -> Run:
        parts = (self.methods[method], self.data[data], self.common)
        configs = [path for part in parts for path in part.configs]
        arguments = [*(word for part in parts for word in part.arguments), *as_arguments(setting)]
        if self.images_by_seed:
            arguments.append(f"--data.seed={seed}")
        words = (*(word for path in configs for word in ("--config", path)), *arguments)
        # What the configs say belongs to the run: one that has changed, but for comments, makes another run of it.
        named = _files(arguments)
        texts = {path: Path(path).read_bytes() for path in (*configs, *named)}
        contents = [_parsed(texts[path]) for path in configs]
        protocol = [self.protocol] if reads_test and self.protocol != "validation" else []
        inner = [_parsed(texts[path]) for path in named]
        digest = hashlib.sha256(json.dumps([contents, arguments, *protocol, *inner]).encode()).hexdigest()[:10]
        files = {path: hashlib.sha256(text).hexdigest() for path, text in texts.items()}
        folder = self.folder / ("runs" if reads_test else "tuning") / data / method / digest / f"seed_{seed}"
        last_epochs = PAPERS_EPOCHS if self.protocol == "paper" and reads_test else 0
        return Run(method, data, seed, words, files, folder, setting, reads_test, last_epochs)

    def _parts(self) -> list[Method | Common]:
        return [*self.methods.values(), *self.data.values(), self.common]
