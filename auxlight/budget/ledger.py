"""Results of trainings in a file, so that an interrupted study goes on where it stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from auxlight.errors import InputError


class Ledger:
    """A file with one line of JSON for each result; its first line says of which study.

    Args:
        path: of the file; None keeps results in memory alone.
        study: plain values that the results depend on.

    Raises:
        InputError: a file of another study.
    """

    def __init__(self, path: Path | None, study: dict[str, Any]) -> None:
        self.path = path
        self._results: dict[str, Any] = {}
        header = json.dumps(study, sort_keys=True)
        if path is None:
            return
        if path.is_file():
            first, *lines = path.read_text().splitlines() or [""]
            if first != header:
                raise InputError(
                    f"{path} must be of this study. Found results of another one: name another folder, or delete it."
                )
            for line in lines:
                try:
                    key, result = json.loads(line)
                except ValueError:  # the line that an interruption cut off
                    continue
                self._results[key] = result
            # Begins anew with what is whole, so that the next line does not follow half of one.
            path.write_text("\n".join([header, *(json.dumps(item) for item in self._results.items())]) + "\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(header + "\n")

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str, compute: Callable[[], Any]) -> Any:
        """The result of this key: remembered, or computed and written down at once."""
        if key not in self._results:
            self._results[key] = compute()
            if self.path is not None:
                with self.path.open("a") as file:
                    file.write(json.dumps((key, self._results[key])) + "\n")
        return self._results[key]
