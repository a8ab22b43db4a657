"""Results of trainings in a file, so that an interrupted study goes on where it stopped."""

import hashlib
import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
from torch import Tensor

from auxlight.budget.images import TaskImages
from auxlight.errors import InputError


class Ledger:
    """A file with one line of JSON for each result; its first line says of which study.

    Lines are only ever appended: two processes at one study do some work twice, and lose nothing.

    Args:
        path: of the file; None keeps results in memory alone.
        study: plain values that the results depend on.

    Raises:
        InputError: a file of another study, or a folder that cannot be written.
    """

    def __init__(self, path: Path | None, study: dict[str, Any]) -> None:
        self._results: dict[str, Any] = {}
        self._file: Any = None
        if path is None:
            return
        header = json.dumps(study, sort_keys=True)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+")
        except OSError as error:
            reason = error.strerror
            raise InputError(f"`folder` must be one that can be written. Found {path.parent}: {reason}.") from error
        self._file.seek(0)
        first, *lines = self._file.read().split("\n")
        if not lines:  # new, or cut off within its first line
            self._file.truncate(0)
            self._write(header)
        elif first != header:
            raise InputError(
                f"{path} must be of this study: the same images, tasks, estimator and training. Found results of "
                "another one: name another folder, or delete it."
            )
        elif lines[-1]:  # an interruption cut off the last line
            self._write("")
        for line in lines:
            try:
                key, result = json.loads(line)
            except ValueError:
                continue
            self._results[key] = result

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result of this key: remembered, or computed and written down at once."""
        if key not in self._results:
            self._results[key] = compute()
            if self._file is not None:
                self._write(json.dumps((key, self._results[key]), allow_nan=False))
        return self._results[key]

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


def fingerprint(images: TaskImages) -> str:
    """Of images and labels: another one for any other."""
    digest = hashlib.sha256(images.image.numpy().tobytes())
    for name, label in sorted(images.labels.items()):
        digest.update(name.encode() + label.numpy().tobytes())
    return digest.hexdigest()[:16]


def described(part: Any, inside: tuple[int, ...] = ()) -> Any:
    """An object as plain values: its class and what it holds; partial functions with their arguments.

    Functions by their names; those without one of their own (lambdas, local ones) by their code and what it refers to.

    Args:
        part: the object.
        inside: of which objects it is part, by identity: what holds itself is not described twice.

    Raises:
        InputError: an object that does not tell what it holds.
    """
    if isinstance(part, np.generic):
        part = part.item()
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Tensor):
        return [str(part.dtype), *described(part.detach().cpu().double().numpy())]
    if isinstance(part, np.ndarray):
        return [str(part.dtype), list(part.shape), hashlib.sha256(part.tobytes()).hexdigest()[:16]]
    if id(part) in inside:
        return "itself"
    within = partial(described, inside=(*inside, id(part)))
    if isinstance(part, list | tuple):
        return [within(item) for item in part]
    if isinstance(part, set | frozenset):
        return sorted(json.dumps(within(item)) for item in part)
    if isinstance(part, dict):
        return {str(key): within(value) for key, value in sorted(part.items(), key=lambda item: str(item[0]))}
    if isinstance(part, partial):
        return ["partial", within(part.func), within(part.args), within(part.keywords)]
    if inspect.ismethod(part):
        return ["method", within(part.__func__), within(part.__self__)]
    if hasattr(part, "__qualname__"):
        name = f"{part.__module__}.{part.__qualname__}"
        if "<" not in name or not hasattr(part, "__code__"):
            return name
        return [name, _instructions(part.__code__), within(part.__defaults__), [within(c) for c in _cells(part)]]
    name = f"{type(part).__module__}.{type(part).__qualname__}"
    if hasattr(part, "__dict__"):
        return [name, within(part.__dict__)]
    if " at 0x" in repr(part):
        raise InputError(
            f"What a study is made of must tell what it holds, so that its results are not taken for another's. Found "
            f"a {name}, which does not: use a class of your own, or leave `folder` out."
        )
    return [name, repr(part)]


def _cells(function: Any) -> list[Any]:
    """What a local function took along from where it was made; "" where that is not there yet."""
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # an empty one
            found.append("")
    return found


def _instructions(code: CodeType) -> list[Any]:
    constants = [_instructions(item) if isinstance(item, CodeType) else described(item) for item in code.co_consts]
    return [code.co_code.hex(), list(code.co_names), constants]
