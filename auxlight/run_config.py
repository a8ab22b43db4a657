"""The config that a run keeps in its folder, and that its checkpoints find again."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import torch
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_warn

from auxlight.checkpoints import check_file
from auxlight.errors import InputError
from auxlight.seeding import global_seed

# Of the data: on what order and augmentation of the training images depend.
ORDER = (
    *("batch_size", "num_train", "num_labelled", "labelled_share", "val_split", "meta_split", "seed"),
    *("crop_padding", "flip"),
)


HEADER = "# lightning.pytorch=="  # of Lightning's own


class FitConfig(SaveConfigCallback):
    """Lightning's `config.yaml`, of fits alone: a test in a run's folder leaves the run's own in place.

    It is the config of a new run: of a resumed one without the checkpoint, and with the loggers as they were given. A
    file that Lightning has not written is the user's, and stays (without a logger the folder is the present one).

    Args:
        *args: see `SaveConfigCallback`.
        given: what is to be written.
        **options: see `SaveConfigCallback`.
    """

    def __init__(self, *args: Any, given: Namespace, **options: Any) -> None:
        super().__init__(*args, **options)
        self.config = given.clone()
        self.config.ckpt_path = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write it."""
        if stage != "fit":
            return
        path = Path(trainer.log_dir or ".") / self.config_filename
        foreign = trainer.is_global_zero and path.is_file() and not path.read_text().startswith(HEADER)
        if trainer.strategy.broadcast(foreign):
            rank_zero_warn(f"{path} is not of a run, and stays as it is: the run's config is not written.")
        else:
            super().setup(trainer, pl_module, stage)


def with_run_config(words: list[str]) -> list[str]:
    """A command line that names a checkpoint begins with the config of the checkpoint's run; its own go over that.

    Not where one of its own names a model: it is complete.

    Args:
        words: of the command line, the subcommand first.

    Raises:
        InputError: `label` without a checkpoint, or a checkpoint without a config and none given.
    """
    pairs = [(word.split("=")[0], word.partition("=")[2] or following) for word, following in pairwise([*words, ""])]
    given = dict(pairs)
    if given.keys() & {"--help", "-h"}:
        return words
    configs = [value for key, value in pairs if key in ("--config", "-c")]
    path = given.get("--ckpt_path", "")
    if words[:1] == ["label"] and not path and not configs:
        raise InputError("`ckpt_path` must be the checkpoint of a run. Found none.")
    if not path or "--model" in given or any("model" in read_config(Path(config)) for config in configs):
        return words
    check_file(path)
    if not Path(path).is_file():  # one of Lightning's keywords
        return words
    config = run_config(path)
    if not config.is_file():
        if configs:
            return words
        raise InputError(f"`--config` must be given: the run of {path} has left none. Found no {config}.")
    return [*words[:1], "--config", str(config), *words[1:]]


def without_logger(words: list[str]) -> list[str]:
    """A command line that looks at a run, and trains nothing, logs nothing unless it names a logger.

    Args:
        words: of the command line, the subcommand first.
    """
    if words[:1] not in (["validate"], ["test"], ["predict"], ["label"]):
        return words
    return words if any(word.startswith("--trainer.logger") for word in words) else [*words, "--trainer.logger=false"]


def run_config(ckpt_path: str) -> Path:
    """Where the config of a checkpoint's run lies."""
    return Path(ckpt_path).resolve().parent.parent / "config.yaml"


def differences(ckpt_path: str, data: L.LightningDataModule) -> list[str]:
    """In what a run differs from this process, of all that order and augmentation of its images depend on.

    Args:
        ckpt_path: of the run.
        data: of this process.
    """
    config = read_config(run_config(ckpt_path))
    trainer, then = config.get("trainer") or {}, (config.get("data") or {}).get("init_args") or {}
    compared = {
        f"data.{name}": (then[name], data.hparams[name]) for name in ORDER if name in then.keys() & data.hparams
    }
    if config.get("seed_everything") is not None:
        compared["seed_everything"] = (config["seed_everything"], global_seed())
    found = [f"{name} was {run} in the run, and is {now} here" for name, (run, now) in compared.items() if run != now]
    devices, nodes = trainer.get("devices", 1), trainer.get("num_nodes", 1)
    if devices == "auto" and trainer.get("accelerator") != "cpu":
        devices = max(1, torch.cuda.device_count())  # as many as a run here would have
    if str(devices) not in ("1", "auto", "None") or str(nodes) not in ("1", "None"):
        found.append(f"the run had devices={devices}, num_nodes={nodes}")
    return found


def read_config(path: Path) -> dict[str, Any]:
    """A config as plain values; nothing of one that cannot be read, which the parser will say."""
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError):
        return {}
    return content if isinstance(content, dict) else {}
