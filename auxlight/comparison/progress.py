"""How far a comparison is, and how long it will take: on a terminal redrawn, in a log a line for each run that ends."""

import heapq
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from auxlight.comparison.spec import Run

LINES = 8  # of running runs
Status = Literal["waiting", "running", "finished", "failed", "left"]


class Sight(NamedTuple):
    """What is known of a run.

    Attributes:
        data: name of its data set.
        method: its name.
        status: where it stands.
        done: epochs that are finished.
        epochs: that it has in all; None before it began, or where only its steps are counted.
        rate: seconds per epoch, of a finished run with its test; None before its first epoch ends.
        lead: seconds from its start to its first epoch; None before that.
    """

    data: str
    method: str
    status: Status
    done: int = 0
    epochs: int | None = None
    rate: float | None = None
    lead: float | None = None


def seconds_left(sights: Sequence[Sight], slots: int) -> float | None:
    """Until all runs are finished, if epochs go on to take what such epochs took; None while none has ended.

    An epoch is taken to last, and a run to start, as in finished runs of the same method on the same data; where there
    are none as in the run itself, else as in running ones like it, else as in other methods' on the same data, else as
    in any.

    Args:
        sights: of all runs, in the order in which they begin.
        slots: runs at once.
    """
    ends = [0.0] * slots  # when each slot is free
    for status in ("running", "waiting"):
        for sight in sights:
            if sight.status == status:
                rate, epochs = _expected(sight, sights, "rate"), sight.epochs or _expected(sight, sights, "epochs")
                if rate is None or epochs is None:
                    return None
                starts = status == "waiting" or sight.lead is None
                lead = (_expected(sight, sights, "lead") or 0.0) if starts else 0.0
                heapq.heapreplace(ends, ends[0] + lead + rate * max(0.0, epochs - sight.done))
    return max(ends)


def _expected(sight: Sight, sights: Sequence[Sight], name: Literal["rate", "epochs", "lead"]) -> float | None:
    """Mean of a value over the runs that are most like this one, of those that have it."""
    groups: dict[tuple[bool, ...], list[float]] = {}
    for other in sights:
        found = getattr(other, name)
        if found is not None:
            unlike = (other.data != sight.data, other.method != sight.method)
            groups.setdefault((*unlike, other.status != "finished", other is not sight), []).append(found)
    likest = groups[min(groups)] if groups else []
    return sum(likest) / len(likest) if likest else None


def in_words(seconds: float | None) -> str:
    """A time that is left, as roughly as it is known."""
    if seconds is None:
        return "time left not known yet"
    if seconds < 90:
        return f"about {max(1, round(seconds))} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min left"


def sight_of(run: Run, status: Status) -> Sight:
    """What a run's folder says of it."""
    at, began = _read(run.folder / "progress.json"), _began(run)
    if not at:
        return Sight(run.data, run.method, status)
    trained = at["epoch"] - at["first"]
    rate = (at["time"] - at["start"]) / trained if trained else None
    # One that goes on but does not train yet: what its folder says is of the time before.
    lead = at["start"] - began if began is not None and began <= at["start"] else None
    epochs = at["epoch"] if status == "finished" else at["epochs"]
    return Sight(run.data, run.method, status, at["epoch"], epochs, rate, lead)


def _began(run: Run) -> float | None:
    return _read(run.folder / "run.json").get("started")


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


class LiveView:
    """Shows on standard error how many runs are finished, failed or waiting, how far the others are, and the time left.

    Args:
        runs: of a comparison, in the order in which they begin; some may be finished.
        slots: runs at once.
        title: what the runs are called.

    Attributes:
        interval: seconds from one look at the runs to the next; None where nothing is shown before a run ends.
    """

    def __init__(self, runs: Sequence[Run], slots: int, title: str = "runs") -> None:
        live = sys.stderr.isatty()
        self.interval = 1.0 if live else None
        self._slots, self._title = slots, title
        self._runs = {run.folder: run for run in runs}
        self._sights = {run.folder: sight_of(run, "finished" if run.result.is_file() else "waiting") for run in runs}
        # One that was interrupted began once before: it runs when it begins anew.
        self._began = {run.folder: _began(run) for run in runs}
        shapes = ["{bar:20} {desc}", *["{desc}"] * min(slots, LINES)] if live else []
        self._rows: list[Any] = [
            tqdm(total=len(runs), bar_format=shape, position=i, leave=i == 0, dynamic_ncols=True)
            for i, shape in enumerate(shapes)
        ]

    def __enter__(self) -> "LiveView":
        self.show()
        return self

    def __exit__(self, *_: object) -> None:
        for row in reversed(self._rows):
            row.close()

    def show(self) -> None:
        """Look at the runs and draw anew; on a terminal alone."""
        if not self._rows:
            return
        self._look()
        running = [(self._runs[folder], sight) for folder, sight in self._sights.items() if sight.status == "running"]
        texts = [self._summary(), *(f"  {run.name}: {_place(sight)}" for run, sight in running[:LINES])]
        self._rows[0].n = sum(sight.status == "finished" for sight in self._sights.values())
        for i, row in enumerate(self._rows):
            row.set_description_str(texts[i] if i < len(texts) else "")

    def ended(self, run: Run, trouble: str = "", status: Literal["failed", "left"] = "failed") -> None:
        """A run has finished, or failed, or is left alone, for a reason."""
        self._sights[run.folder] = sight_of(run, status if trouble else "finished")
        text = f"{status}: {run.name}, {trouble}" if trouble else f"finished: {run.name}"
        if self._rows and trouble:
            tqdm.write(text, file=sys.stderr)
        elif not self._rows:
            self._look()
            print(f"{text} ({self._summary()})", file=sys.stderr, flush=True)

    def _look(self) -> None:
        """At the folders of those that may have moved."""
        for folder, run in self._runs.items():
            if self._sights[folder].status in ("waiting", "running"):
                runs = _began(run) != self._began[folder]
                self._sights[folder] = sight_of(run, "running" if runs else "waiting")

    def _summary(self) -> str:
        sights = list(self._sights.values())
        count = Counter(sight.status for sight in sights)
        parts = [f"{count['finished']} of {len(sights)} finished"]
        parts += [f"{count[status]} {status}" for status in ("failed", "left", "running", "waiting") if count[status]]
        if count["running"] + count["waiting"]:
            parts.append(in_words(seconds_left(sights, self._slots)))
        return f"{self._title}: {', '.join(parts)}"


def _place(sight: Sight) -> str:
    if sight.done == sight.epochs:
        return "after its last epoch"
    return f"epoch {sight.done + 1}" + (f" of {sight.epochs}" if sight.epochs else "")
