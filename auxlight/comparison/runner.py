"""Runs of a comparison as processes: those that are finished are skipped, those that were interrupted go on."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from tqdm import tqdm

from auxlight.comparison.spec import Run
from auxlight.errors import InputError


def run_all(runs: Sequence[Run], jobs: int = 1) -> list[Run]:
    """Run what is not finished yet.

    Args:
        runs: of a comparison.
        jobs: processes at once.

    Returns:
        The runs that failed; the output of each lies in its folder's `log.txt`.

    Raises:
        InputError: fewer than one job.
    """
    if jobs < 1:
        raise InputError(f"`jobs` must be at least 1. Found jobs={jobs}.")
    waiting = [run for run in runs if not run.result.is_file()]
    if len(waiting) < len(runs):
        print(f"{len(runs) - len(waiting)} of {len(runs)} runs are finished already.")
    failed = []
    with ThreadPoolExecutor(jobs) as pool, tqdm(total=len(waiting), desc="runs", disable=None) as bar:
        futures = {pool.submit(run_one, run, jobs): run for run in waiting}
        try:
            for future in as_completed(futures):
                run = futures[future]
                bar.set_postfix_str(run.name)
                if not future.result():
                    failed.append(run)
                    bar.write(f"failed: {run.name}, see {run.folder / 'log.txt'}")
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return failed


def command(run: Run) -> list[str]:
    """The `auxlight fit` that a run is, going on from its last checkpoint if there is one."""
    words = ["fit", *run.words, f"--seed_everything={run.seed}"]
    logger = "lightning.pytorch.loggers.TensorBoardLogger"
    words += [f"--trainer.logger={logger}", f"--trainer.logger.save_dir={run.folder}"]
    words += ["--trainer.logger.name=", "--trainer.logger.version=", "--trainer.logger.default_hp_metric=false"]
    words += ["--trainer.callbacks+=auxlight.comparison.RunRecord", f"--trainer.callbacks.folder={run.folder}"]
    if run.last_epochs:
        words.append(f"--trainer.callbacks.last_epochs={run.last_epochs}")
    if not run.reads_test:
        words += ["--trainer.callbacks.tested=false", "--test_after_fit=false"]
    last = run.folder / "checkpoints" / "last.ckpt"
    return [*words, f"--ckpt_path={last}"] if last.is_file() else words


def run_one(run: Run, jobs: int = 1) -> bool:
    """Run it, in a process of its own with its share of the cores; whether it is finished then."""
    run.folder.mkdir(parents=True, exist_ok=True)
    words = command(run)
    about = {"method": run.method, "data": run.data, "seed": run.seed, "setting": run.setting}
    about["command"] = shlex.join(["auxlight", *words])
    (run.folder / "run.json").write_text(json.dumps(about, indent=2) + "\n")
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
    with (run.folder / "log.txt").open("a") as log:
        subprocess.run([sys.executable, "-m", "auxlight", *words, *quiet], stdout=log, stderr=log, env=environment)
    return run.result.is_file()
