"""The config that a run keeps in its folder, and that its checkpoints find again."""

from itertools import pairwise
from pathlib import Path

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from auxlight.checkpoints import check_file
from auxlight.errors import InputError


class FitConfig(SaveConfigCallback):
    """Lightning's `config.yaml`, of fits alone: a test in a run's folder leaves the run's own in place."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it."""
        if stage == "fit":
            super().setup(trainer, pl_module, stage)


def with_run_config(words: list[str]) -> list[str]:
    """A command line that names a checkpoint but no config takes the config of the checkpoint's run.

    Args:
        words: of the command line, the subcommand first.
    """
    given = {word.split("=")[0]: (word.partition("=")[2] or following) for word, following in pairwise([*words, ""])}
    path = given.get("--ckpt_path", "")
    if words[:1] == ["label"] and not given.keys() & {"--ckpt_path", "--config", "-c", "--help", "-h"}:
        raise InputError("`ckpt_path` must be the checkpoint of a run. Found none.")
    if not path or given.keys() & {"--config", "-c", "--model", "--data", "--help", "-h"}:
        return words
    check_file(path)
    config = Path(path).resolve().parent.parent / "config.yaml"
    return [*words[:1], "--config", str(config), *words[1:]] if config.is_file() else words
