"""The `auxlight fit` that a run is."""

import shlex
from pathlib import Path

from auxlight.comparison.spec import Run


def command(run: Run) -> list[str]:
    """Of the comparison: logs, checkpoints and result lie in the run's folder."""
    logger = "lightning.pytorch.loggers.TensorBoardLogger"
    words = [f"--trainer.logger={logger}", f"--trainer.logger.save_dir={run.folder}"]
    words += ["--trainer.logger.name=", "--trainer.logger.version=", "--trainer.logger.default_hp_metric=false"]
    return [*_fit(run), *words, *_record(run, run.folder)]


def repeating(run: Run) -> str:
    """For a shell: the same in a folder of its own, with its result in `repeated/result.json`."""
    return shlex.join(["auxlight", *_fit(run), *_record(run, Path("repeated"))])


def _fit(run: Run) -> list[str]:
    return ["fit", *run.words, f"--seed_everything={run.seed}"]


def _record(run: Run, folder: Path) -> list[str]:
    words = ["--trainer.callbacks+=auxlight.comparison.RunRecord", f"--trainer.callbacks.folder={folder}"]
    if run.last_epochs:
        words.append(f"--trainer.callbacks.last_epochs={run.last_epochs}")
    if not run.reads_test:
        words.append("--trainer.callbacks.tested=false")
    return [*words, f"--test_after_fit={'true' if run.reads_test else 'false'}"]
