"""Shows what was learned while it is learned."""

import warnings
from collections.abc import Sequence
from typing import Any

import lightning as L

from auxlight.batch import Batch
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.inspection.board import Board
from auxlight.inspection.confusion import ConfusionMatrices
from auxlight.inspection.evidence import gather
from auxlight.inspection.gradients import TaskGradients
from auxlight.inspection.grids import LabelGrids
from auxlight.inspection.projector import FeatureProjector
from auxlight.inspection.record import LabelRecorder
from auxlight.inspection.usage import LabelUsage
from auxlight.inspection.view import View
from auxlight.inspection.weights import WeightPlots
from auxlight.modules.classifier import AuxiliaryClassifier


def default_views() -> list[View]:
    """All of them, with their defaults."""
    return [LabelUsage(), LabelGrids(), WeightPlots(), ConfusionMatrices(), TaskGradients(), FeatureProjector()]


class Inspection(L.Callback):
    """Every n epochs and at the end, views of the labels, weights, gradients and features go to the loggers.

    Scalars reach any logger, pictures only TensorBoard. It works with any labeler, and with none; weights, random
    generators and statistics are as they would be without it, and a view that fails ends in a warning. Of several tasks
    with labels the first one is looked at; on several devices the first one shows its own images.

    Args:
        every_n_epochs: 0 for never. (TensorBoard keeps ten pictures of a kind: those of the papers' 200 epochs.)
        num_images: validation images that are looked at, always the same ones.
        views: what to show; by default label usage, image grids, weights, confusion, gradients and the projector.
        seed: of the choice of images.

    Raises:
        InputError: numbers out of range; at the start of the fit, another module than an `AuxiliaryClassifier`, or no
            auxlight data module.
    """

    def __init__(
        self, every_n_epochs: int = 20, num_images: int = 512, views: Sequence[View] | None = None, seed: int = 0
    ) -> None:
        for name, value, least in (("every_n_epochs", every_n_epochs, 0), ("num_images", num_images, 1)):
            if value < least:
                raise InputError(f"`{name}` of Inspection must be at least {least}. Found {name}={value}.")
        self.every_n_epochs = every_n_epochs
        self.num_images = num_images
        self.views = default_views() if views is None else list(views)
        self.seed = seed
        self._recorder = LabelRecorder()
        self._shown = False

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check what is to be looked at."""
        if self._is_on(trainer):
            self._data_of(trainer, pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the last epoch's labels."""
        self._recorder.reset()
        self._shown = False

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the labels that trained."""
        task = getattr(pl_module, "labelled_task", None)
        if task is not None and task.target is not None and isinstance(batch, Batch) and self._is_on(trainer):
            self._recorder.add(batch, task.target)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show, if it is time."""
        if self._is_on(trainer) and (trainer.current_epoch + 1) % self.every_n_epochs == 0:
            self._show(trainer, pl_module, [view for view in self.views if not view.only_at_end])
            self._shown = True

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the last epoch; if it has just been shown, only what waits for the end."""
        if self._is_on(trainer):
            self._show(trainer, pl_module, [view for view in self.views if view.only_at_end or not self._shown])

    def _show(self, trainer: L.Trainer, pl_module: L.LightningModule, views: Sequence[View]) -> None:
        if not trainer.is_global_zero or not views:
            return
        module, data = self._data_of(trainer, pl_module)
        board = Board(trainer.loggers, trainer.global_step - 1)
        evidence = gather(trainer, module, data, self.num_images, self.seed, self._recorder.labels())
        for view in views:
            try:
                view.show(evidence, board)
            except Exception as error:  # a picture that fails must not cost the run
                name = type(view).__name__
                warnings.warn(f"{name} could not be shown: {type(error).__name__}: {error}", stacklevel=1)

    def _is_on(self, trainer: L.Trainer) -> bool:
        """Whether anybody looks."""
        return bool(self.every_n_epochs and trainer.loggers and not getattr(trainer, "fast_dev_run", 0))

    def _data_of(self, trainer: L.Trainer, pl_module: L.LightningModule) -> tuple[AuxiliaryClassifier, ImageDataModule]:
        data = getattr(trainer, "datamodule", None)
        for name, found, kind in (("module", pl_module, AuxiliaryClassifier), ("data module", data, ImageDataModule)):
            if not isinstance(found, kind):
                raise InputError(
                    f"Inspection looks at an {kind.__name__}. Found as {name} {type(found).__name__}: "
                    "leave the callback out."
                )
        assert isinstance(pl_module, AuxiliaryClassifier) and isinstance(data, ImageDataModule)
        return pl_module, data
