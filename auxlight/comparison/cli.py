"""`auxlight compare --config COMPARISON.yaml [--jobs N]`."""

from collections.abc import Sequence

from jsonargparse import ArgumentParser

from auxlight.comparison.archive import RUNS, pack, unpack
from auxlight.comparison.report import write_report
from auxlight.comparison.runner import Processes, run_all
from auxlight.comparison.spec import Comparison, Run
from auxlight.errors import InputError


def main(words: Sequence[str]) -> None:
    """Run what is not finished, then write table and report.

    Args:
        words: of the command line, after `compare`.

    Raises:
        InputError: runs failed; all others are finished, and in the report.
    """
    parser = ArgumentParser(
        prog="auxlight compare", description="Methods, controls and seeds: one table.", exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file of the comparison.")
    parser.add_class_arguments(Comparison, None)
    parser.add_argument("--jobs", type=int, default=1, help="Processes at once.")
    parser.add_argument("--report_only", type=bool, default=False, help="Run nothing, write the report.")
    arguments = parser.instantiate(parser.parse_args(list(words))).as_dict()
    jobs, report_only, _ = (arguments.pop(key, None) for key in ("jobs", "report_only", "config"))
    comparison = Comparison(**arguments)
    archive = comparison.archive or comparison.folder
    unpack(comparison, archive)
    failed: list[Run] = []
    try:
        if not report_only:
            workers = Processes(jobs)
            _refuse(run_all(comparison.tuning_runs(), workers, "tuning runs"), "settings cannot be chosen yet")
            failed = run_all(comparison.runs(), workers)
    finally:  # also what was finished before an interruption
        pack(comparison, archive)
    path = write_report(comparison)
    print(path.read_text())
    print(f"Written to {path} and {path.with_suffix('.html')}, every run to {archive / RUNS}")
    _refuse(failed, "all others are in the report")


def _refuse(failed: Sequence[Run], consequence: str) -> None:
    if failed:
        raise InputError(
            f"{len(failed)} runs failed, {consequence}. The first is in {failed[0].folder}: see its log.txt, and start "
            "again to go on."
        )
