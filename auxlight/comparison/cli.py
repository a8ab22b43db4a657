"""`auxlight compare --config COMPARISON.yaml [--jobs N] [--ray ADDRESS]`."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from auxlight.comparison.archive import RUNS, pack, unpack
from auxlight.comparison.check import check_arguments
from auxlight.comparison.cluster import RayCluster
from auxlight.comparison.report import write_report
from auxlight.comparison.runner import Processes, Workers, run_all
from auxlight.comparison.spec import Comparison, Run
from auxlight.errors import InputError
from auxlight.outputs import make_folder
from auxlight.parser_errors import one_line


def read(words: Sequence[str]) -> tuple[Comparison, dict[str, Any]]:
    """The comparison of a command line, and the options that say where and whether it runs.

    Args:
        words: of the command line, after `compare`.
    """
    parser = ArgumentParser(
        prog="auxlight compare", description="Methods, controls and seeds: one table.", exit_on_error=False
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file of the comparison.")
    parser.add_class_arguments(Comparison, None)
    parser.add_argument("--jobs", type=int, help="Runs at once; by default 1, on a Ray cluster as many as fit.")
    parser.add_argument("--ray", type=str, help="A Ray cluster runs them: local, auto, or a cluster's address.")
    parser.add_argument("--cpus_per_run", type=int, default=1, help="Cores of a run on a Ray cluster.")
    parser.add_argument("--gpus_per_run", type=float, default=0.0, help="GPUs of a run on a Ray cluster.")
    parser.add_argument(
        "--report_only", type=bool, default=False, help="Run nothing, write the report; an archive is only read."
    )
    with one_line(parser):
        arguments = parser.instantiate(parser.parse_args(list(words))).as_dict()
    names = ("jobs", "ray", "cpus_per_run", "gpus_per_run", "report_only")
    options = {name: arguments.pop(name) for name in names}
    del arguments["config"]
    return Comparison(**arguments), options


def _try_to_pack(comparison: Comparison) -> str:
    """An archive that cannot be read or written for now, in the middle of a merge perhaps, holds no run up.

    Returns:
        Why not; "" if it was written.
    """
    try:
        pack(comparison, comparison.archive)
    except (InputError, OSError) as error:
        reason = f"The finished runs are safe in {comparison.folder}, but in no table yet. {error}"
        print(reason, file=sys.stderr)
        return reason
    return ""


def main(words: Sequence[str]) -> None:
    """Run what is not finished, then write table and report.

    Args:
        words: of the command line, after `compare`.

    Raises:
        InputError: runs failed; all others are finished, and in the report. Or the archive cannot be written.
    """
    comparison, options = read(words)
    make_folder(comparison.folder)
    jobs, address = options["jobs"], options["ray"]
    workers: Workers = (
        RayCluster(address, options["cpus_per_run"], options["gpus_per_run"], jobs)
        if address
        else Processes(1 if jobs is None else jobs)
    )
    if comparison.archive is not None:
        unpack(comparison, comparison.archive)
    failed: list[Run] = []
    try:
        if not options["report_only"]:
            check_arguments(comparison.known_runs())
            keep = partial(_try_to_pack, comparison)
            failed += run_all(comparison.tuning_runs(), workers, "tuning runs", keep)
            failed += run_all(comparison.runs_so_far(), workers, keep=keep)
    except KeyboardInterrupt:
        print("Stopped. Start again to go on from the last checkpoints.", file=sys.stderr)
        raise SystemExit(130) from None
    finally:  # also what was under way when it was interrupted, and has finished since
        reads = options["report_only"] and comparison.archive is not None  # an archive stays as it is
        unkept = "" if reads else _try_to_pack(comparison)
    path = write_report(comparison)
    print(path.read_text())
    if unkept:
        raise InputError(unkept)
    table = "" if reads else f", every run to {(comparison.archive or comparison.folder) / RUNS}"
    print(f"Written to {path} and {path.with_suffix('.html')}{table}")
    if failed:
        raise InputError(
            f"{len(failed)} runs failed, all others are in the report (of a method with a failed tuning run, no more "
            f"than its tuning). The first is in {failed[0].folder}: see its log.txt, and start again to go on."
        )
