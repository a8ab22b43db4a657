"""Results of trainings in a file, so that an interrupted study goes on where it stopped."""

import hashlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

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


def described(part: Any) -> Any:
    """An object as plain values: its class and what it holds; functions by their names, partial ones with arguments."""
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, list | tuple):
        return [described(item) for item in part]
    if isinstance(part, dict):
        return {str(key): described(value) for key, value in sorted(part.items())}
    if isinstance(part, partial):
        return ["partial", described(part.func), described(part.args), described(part.keywords)]
    if hasattr(part, "__qualname__"):
        return f"{part.__module__}.{part.__qualname__}"
    return [f"{type(part).__module__}.{type(part).__qualname__}", described(getattr(part, "__dict__", {}))]
