"""What `auxlight predict` leaves behind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import BasePredictionWriter

from auxlight.datamodules import ImageDataModule
from auxlight.errors import InputError
from auxlight.modules.outputs import Prediction
from auxlight.outputs import writable


class PredictionWriter(BasePredictionWriter):
    """Writes the predictions of a data set to one .npz file.

    Arrays: index (N,), position in the test set, or among the images below `predict_root`; primary (N,), predicted
    class; probabilities (N, C); class_names (C,); path (N,), below `root` or `predict_root`, where the images come from
    files. On several devices each writes the images that it saw,
    with its rank in the file's name.

    Args:
        path: of the file.
    """

    def __init__(self, path: str = "predictions.npz") -> None:
        super().__init__(write_interval="epoch")
        self.path = Path(path)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Try the file before there is something to write."""
        if stage == "predict":
            if self.path.suffix != ".npz":
                raise InputError(f"`predictions.path` must be a .npz file. Found {self.path}.")
            writable(self._path(trainer), "predictions.path")

    def write_on_epoch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Write once, when all batches are predicted."""
        path = self._path(trainer)
        columns = Prediction(*(torch.cat(parts).cpu() for parts in zip(*predictions, strict=True)))
        data = getattr(trainer, "datamodule", None)
        more: dict[str, Any] = {}
        if isinstance(data, ImageDataModule):
            more["class_names"] = np.array(data.class_names)
            if (files := data.predicted_file_names()) is not None:
                more["path"] = np.array(files)[columns.index.numpy()]
        np.savez(
            path,
            index=columns.index.numpy(),
            primary=columns.primary.numpy(),
            probabilities=columns.probabilities.float().numpy(),
            **more,
        )
        pl_module.print(f"Predictions of {len(columns.index)} images: {path}")

    def _path(self, trainer: L.Trainer) -> Path:
        """Of this device's file."""
        if trainer.world_size == 1:
            return self.path
        return self.path.with_stem(f"{self.path.stem}_rank{trainer.global_rank}")
