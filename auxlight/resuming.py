"""A resumed run goes on in the folder of its checkpoint."""

from itertools import count
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from auxlight.run_config import read_config, run_config


def go_on_in_place(ckpt_path: str, trainer: Namespace) -> Path | None:
    """Lead TensorBoard's and CSV loggers into the folder of a checkpoint's run, where they are the run's.

    They are where its config has the same ones, wherever the folder lies by now, or where they lead there as they are.

    Args:
        ckpt_path: from which the run goes on.
        trainer: its arguments, which are changed.

    Returns:
        The folder, if a CSV logger will write there.
    """
    metrics = None
    run = run_config(ckpt_path).parent
    given = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
    loggers = [logger for logger in given if _has_versions(logger)]
    same = _plain(trainer.logger) == (read_config(run_config(ckpt_path)).get("trainer") or {}).get("logger")
    first = _root(loggers[0]) if same and given[:1] == loggers[:1] != [] else None  # whose folder is the run's
    for logger in loggers:
        arguments, root = logger.init_args, _root(logger)
        leads = arguments.version is not None and Path(root, str(arguments.version)).resolve() == run
        beside = root.resolve() == run.parent and (same or arguments.version is None)
        if not (leads or beside or root == first):
            continue
        if not (leads or beside):
            arguments.save_dir, arguments.name = str(run.parent.parent), run.parent.name
        if not leads:
            arguments.version = run.name
        if logger.class_path.endswith("CSVLogger"):
            metrics = run
    return metrics


def _has_versions(logger: Any) -> bool:
    kinds = ("TensorBoardLogger", "CSVLogger")
    return (
        isinstance(logger, Namespace)
        and logger.class_path.rpartition(".")[2] in kinds
        and not logger.init_args.get("sub_dir")
    )


def _root(logger: Namespace) -> Path:
    return Path(logger.init_args.save_dir, logger.init_args.name or "")


def _plain(logger: Any) -> Any:
    if isinstance(logger, list):
        return [_plain(one) for one in logger]
    return logger.as_dict() if isinstance(logger, Namespace) else logger


def keep_metrics(run: Path) -> None:
    """Lightning's CSV logger begins its file anew; the one that is there gets another name.

    Args:
        run: the folder.
    """
    metrics = run / "metrics.csv"
    if metrics.is_file():
        free = (run / f"metrics_before_{number}.csv" for number in count(1))
        metrics.rename(next(path for path in free if not path.exists()))
