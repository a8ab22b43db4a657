"""A progress bar that says which network is training."""

import contextlib
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar


class PhaseProgressBar(TQDMProgressBar):
    """Lightning's bar; the main network's epochs are named, as `RLAuxCallback` names the agent's."""

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Name the epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch} · main")

    def on_exception(self, *args: Any) -> None:
        """End the bar's line, so that what is said next has one of its own."""
        for name in ("train_progress_bar", "val_progress_bar"):
            with contextlib.suppress(TypeError):  # raised while there is no bar yet
                getattr(self, name).close()
