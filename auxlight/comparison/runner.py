"""Runs of a comparison: those that are finished are skipped, those that were interrupted go on."""

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from typing import Protocol

from auxlight.comparison.commands import command
from auxlight.comparison.process import fit
from auxlight.comparison.progress import LiveView
from auxlight.comparison.spec import Run
from auxlight.errors import InputError


class Workers(AbstractContextManager["Workers"], Protocol):
    """Where runs are executed; when the context is left, what still runs is ended or waited for.

    Attributes:
        slots: runs at once, once the context is entered.
    """

    slots: int

    def submit(self, run: Run) -> Future[bool]:
        """Execute a run as soon as there is a slot; the result is whether it is finished then."""


class Processes(AbstractContextManager["Processes"]):
    """Processes of this machine, which share its cores.

    Args:
        jobs: processes at once.

    Raises:
        InputError: fewer than one job.
    """

    def __init__(self, jobs: int = 1) -> None:
        if jobs < 1:
            raise InputError(f"`jobs` must be at least 1. Found jobs={jobs}.")
        self.slots = jobs

    def __enter__(self) -> "Processes":
        self._pool = ThreadPoolExecutor(self.slots)
        return self

    def submit(self, run: Run) -> Future[bool]:
        """Execute a run as soon as there is a slot."""
        threads = max(1, (os.cpu_count() or 1) // self.slots)
        return self._pool.submit(fit, *call(run), threads)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is KeyboardInterrupt:
            print("Stopping once the runs under way have ended.", file=sys.stderr, flush=True)
        self._pool.shutdown(cancel_futures=True)


def run_all(
    runs: Sequence[Run],
    workers: Workers | None = None,
    title: str = "runs",
    keep: Callable[[], object] = lambda: None,
) -> list[Run]:
    """Run what is not finished yet, and show how far it is.

    Args:
        runs: of a comparison.
        workers: that execute them; by default one process after the other.
        title: what the runs are called.
        keep: called whenever runs have ended, so that what they found outlives whatever happens next.

    Returns:
        The runs that failed; the output of each lies in its folder's `log.txt`. One that another process is at is none
        of them.

    Raises:
        InputError: nothing has ever finished, and all that ended failed for one reason, whatever their method: what is
            missing to them, such as data, is missing to the others too, which are not begun.
    """
    waiting = [run for run in runs if not run.result.is_file()]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} {title} are finished already.")
    if not waiting:
        return []
    failed: list[Run] = []
    reasons: set[str] = set()
    with workers or Processes() as crew, LiveView(runs, crew.slots, title) as view:
        futures = {crew.submit(run): run for run in waiting}
        unfinished = set(futures)
        while unfinished:
            done, unfinished = wait(unfinished, timeout=view.interval, return_when=FIRST_COMPLETED)
            for future in done:
                run = futures[future]
                if isinstance(future.exception(), BlockingIOError):
                    view.ended(run, "another process is at it", "left")
                    continue
                reason = _reason(future, run)
                if reason:
                    failed.append(run)
                    reasons.add(reason)
                view.ended(run, reason and f"see {run.folder / 'log.txt'}: {reason}")
            view.show()
            if done:
                keep()
            none_finished = len(failed) == len(runs) - len(unfinished)
            if unfinished and none_finished and len(reasons) == 1 < len({run.method for run in failed}):
                raise InputError(f"The first {len(failed)} {title} failed for one reason, no more are begun. {reason}")
    return failed


def _reason(future: Future[bool], run: Run) -> str:
    """Why a run is not finished; "" if it is."""
    error = future.exception()
    if error is not None:
        return ": ".join([type(error).__name__, *str(error).splitlines()[-1:]])  # a cluster sends a stack trace along
    if not future.result():
        log = run.folder / "log.txt"
        lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
        return lines[-1].strip().removeprefix("auxlight: error: ")[:300] if lines else "it ended without a word"
    return "" if run.result.is_file() else "it finished, but its folder is not shared with this machine"


def call(run: Run) -> tuple[list[str], dict[str, object], dict[str, str], str, str]:
    """What a run is, as plain values, to `fit` in another place."""
    about: dict[str, object] = {"method": run.method, "data": run.data, "seed": run.seed, "setting": run.setting}
    return command(run), about, run.files, str(run.folder), os.getcwd()
