"""Which checkpoints a run writes, and which it takes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from jsonargparse import Namespace
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.callbacks import ModelCheckpoint

from auxlight.errors import InputError

KEYWORDS = ("best", "last", "hpc", "registry")  # of Lightning's, in the place of a checkpoint's path


def check_file(path: str) -> None:
    """Refuse what Lightning cannot resume from; its own keywords and addresses pass.

    Raises:
        InputError: no file, or one that is no checkpoint of plain values.
    """
    if path in KEYWORDS or "://" in path:
        return
    if not Path(path).is_file():
        raise InputError(f"`ckpt_path` must be a checkpoint. Found no file {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        complete = {"state_dict", "pytorch-lightning_version"} <= content.keys()
    except Exception as error:  # whatever a damaged file makes of zipfile and pickle
        raise InputError(f"`ckpt_path` must be a checkpoint. Found {path}, which cannot be read.") from error
    if not complete:
        raise InputError(f"`ckpt_path` must be a checkpoint of a run. Found {path} without one's entries.")


def check_model(path: str, asked_for: Namespace, merged: Namespace) -> None:
    """Refuse a checkpoint of another model than the one asked for, which would silently replace it.

    Raises:
        InputError: the arguments differ; the first few are named.
    """
    asked, found = (dict(_flat(arguments.as_dict())) for arguments in (asked_for, merged))
    differing = sorted(key for key in asked.keys() | found.keys() if asked.get(key) != found.get(key))
    differing = [key for key in differing if "hierarchy" not in key]  # comes from the data
    if differing:
        key = differing[0]
        raise InputError(
            f"`ckpt_path` must hold the model that is asked for. Found {path} with {key}={found.get(key)!r} instead of "
            f"{asked.get(key)!r}{f' and {len(differing) - 1} more' if len(differing) > 1 else ''}: leave out what "
            "changes the model, use the run's own config, or start without the checkpoint."
        )


def last_epoch(path: str) -> int:
    """The epoch (from 0) during or after which a checkpoint of a fit was written."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    try:
        return max(0, int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["started"]) - 1)
    except KeyError as error:
        raise InputError(
            f"`ckpt_path` must say which epoch it is of. Found {path} without: use `--view plain`."
        ) from error


def steps_of(path: str) -> int:
    """Optimizer steps that a checkpoint's run had taken."""
    return int(torch.load(path, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def load_network(module: L.LightningModule, path: str) -> None:
    """Give a module the parameters and buffers of a checkpoint, if it takes that."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    module.on_load_checkpoint(content)
    module.load_state_dict(content["state_dict"])


def _flat(value: Any, prefix: str = "model") -> Iterator[tuple[str, Any]]:
    """Leaves of nested dictionaries by dotted key; an argument may stand among the keyword arguments as well."""
    if isinstance(value, dict):
        for key, item in value.items():
            inner = prefix if key in ("init_args", "dict_kwargs") else f"{prefix}.{key}"
            yield from _flat(item, inner)
    else:
        yield prefix, value


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the epoch of the highest validation accuracy."""

    def __init__(self) -> None:
        super().__init__(filename="best", enable_version_counter=False, monitor="val/accuracy", mode="max")
        self._found = ""

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Find the best epoch so far: beside the checkpoint, wherever that has been moved to, or where it was."""
        recorded = (checkpoint["callbacks"].get(self.state_key) or {}).get("best_model_path", "")
        found = self._find(recorded, str(trainer.ckpt_path)) if trainer.is_global_zero and recorded else ""
        self._found = trainer.strategy.broadcast(found)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the best epoch so far, also in another folder; without, if it is gone."""
        state = {**state_dict, "dirpath": self.dirpath, "best_model_path": self._found}
        if self._found:
            score = state["best_model_score"]
            state |= {"best_k_models": {self._found: score}, "kth_best_model_path": self._found, "kth_value": score}
        else:
            state |= {"best_model_score": None, "best_k_models": {}, "kth_best_model_path": ""}
            state["kth_value"] = self.kth_value
        super().load_state_dict(state)

    def _find(self, recorded: str, ckpt_path: str) -> str:
        folder, name = ckpt_path.rpartition("/")[0] or ".", recorded.rpartition("/")[2]
        own = os.path.join(self.dirpath or ".", name)  # as it will be called when it is written over
        places = (f"{folder}/{name}", recorded)
        found = next((path for path in places if get_filesystem(path).isfile(path)), "")
        return own if found and os.path.realpath(found) == os.path.realpath(own) else found


class LastCheckpoint(ModelCheckpoint):
    """Writes ``last.ckpt`` after each epoch, from which a run resumes to the same weights.

    `save_last` of the best checkpoint would not do: it writes only when the score improves, and from inside the epoch.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
