"""What a run of a comparison leaves behind."""

import json
import math
from pathlib import Path
from typing import Any, cast

import lightning as L

from auxlight.batch import Batch
from auxlight.comparison.clock import TrainingClock
from auxlight.comparison.measures import StepLength, accuracy_on_test, logged, trunk_gradients
from auxlight.comparison.progress_file import ProgressFile, num_epochs
from auxlight.comparison.provenance import commit, device, versions
from auxlight.errors import DivergedError, InputError
from auxlight.inspection.record import LabelRecorder
from auxlight.inspection.usage import label_usage
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.outputs import make_folder, write_whole


class RunRecord(L.Callback):
    """Leaves `result.json` in a run's folder once it is finished; its curves survive an interruption.

    A training that diverges, whatever its method, ends with that epoch and is finished: it is judged by the checkpoint
    that validated best before; where there is none its test accuracy is chance, one over the number of classes. By the
    paper's protocol the epochs that it did not live to see count as chance.

    `progress.json` says meanwhile how many epochs are finished, of how many, and since when.

    Beside the metrics each epoch has lengths and cosines of the tasks' gradients for the trunk (on 64 validation
    images) and how far the epoch's last step moved the trunk: a larger step and better features are told apart by them;
    and of a labelled task how the labels that it trained with are used (see `inspection.LabelUsage`).

    Args:
        folder: of the run.
        tested: whether a test ends it.
        last_epochs: the paper's protocol: of so many last epochs the test accuracy is measured, after each; their mean
            is the result's "last_epochs".

    Raises:
        InputError: at the start of the fit, one with fewer epochs than `last_epochs`, or of unknown length; at its end,
            one that ended before them, or was never validated.
        DivergedError: at the end of an epoch after which the network is no longer finite.
    """

    def __init__(self, folder: str, tested: bool = True, last_epochs: int = 0) -> None:
        self.folder = Path(folder)
        self.tested = tested
        self.last_epochs = last_epochs
        self.epochs: list[dict[str, float]] = []
        self.test_accuracies: list[float] = []
        self.commits = [commit()]
        self.clock = TrainingClock()
        self._trained: int | None = None  # epochs, once the fit is over
        self._diverged = False
        self._chance = 0.0
        self._labels = LabelRecorder()
        self._last_step = StepLength()  # of an epoch
        self._progress = ProgressFile(self.folder / "progress.json")

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check that there are as many epochs as the protocol asks for, and make the folder."""
        if self.last_epochs and (num_epochs(trainer) or 0) < self.last_epochs:
            raise InputError(
                f"The paper's protocol needs `max_epochs` of {self.last_epochs} at least. "
                f"Found max_epochs={trainer.max_epochs}."
            )
        make_folder(self.folder)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clocks start before the first epoch, and an agent's in it."""
        self._progress.begin(trainer)
        self.clock.start()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the last epoch's labels."""
        self._labels.reset()

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """An epoch's last step is measured."""
        if trainer.is_last_batch:
            self._last_step.begin(pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """And each step's labels are kept."""
        task = getattr(pl_module, "labelled_task", None)
        if task is not None and task.target is not None and isinstance(batch, Batch):
            self._labels.add(batch, task.target)
        self._last_step.end()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validation is no training."""
        if not trainer.sanity_checking:
            self.clock.stop()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A point of the curves."""
        if trainer.sanity_checking:
            return
        numbers = trunk_gradients(trainer, pl_module)
        labels = self._labels.labels()
        if labels is not None and isinstance(pl_module, AuxiliaryClassifier):
            found = label_usage(labels, pl_module.hierarchy)
            numbers |= {name: value for name, value in found.items() if math.isfinite(value)}
        row = {"epoch": trainer.current_epoch, "seconds": self.clock.spent["seconds"], **logged(trainer), **numbers}
        self.epochs.append(row)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """What comes now is training again."""
        self.clock.start()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before the epoch's checkpoint."""
        self.clock.stop()
        if not all(parameter.isfinite().all() for parameter in pl_module.parameters()):
            self.epochs = [row for row in self.epochs if row["epoch"] < trainer.current_epoch]
            raise DivergedError(
                "The network must stay finite. Found infinite parameters, or not a number, after epoch "
                f"{trainer.current_epoch}: lower the learning rate, or look at the losses."
            )
        if self.epochs and self.epochs[-1]["epoch"] == trainer.current_epoch:
            # What is logged of training comes after validation.
            self.epochs[-1] |= {"trunk/update_norm": self._last_step.value, **logged(trainer)}
        if self.last_epochs and trainer.current_epoch >= int(trainer.max_epochs or 0) - self.last_epochs:
            self.test_accuracies.append(accuracy_on_test(trainer, pl_module))
        self._progress.say(trainer, trainer.current_epoch + 1)
        self.clock.start()

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The end of a run that is not tested."""
        self._trained = trainer.current_epoch
        if not self.tested:
            self._write(trainer)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """A training that diverges ends there, and is judged by what it was before."""
        if isinstance(exception, DivergedError):
            self._diverged = True
            self._trained = trainer.current_epoch
            self._chance = 1 / cast(AuxiliaryClassifier, pl_module).hierarchy.num_primary
            if not self.tested or not self.epochs:  # without an epoch there is nothing to test
                self._write(trainer)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The end of one that is. A test by itself, of whatever checkpoint, leaves the result alone."""
        if self._trained is not None:
            self._write(trainer)

    def _write(self, trainer: L.Trainer) -> None:
        """Everything, at once and whole."""
        if not self.epochs and not self._diverged:
            raise InputError(
                "A run of a comparison must be validated once at least: set `check_val_every_n_epoch` and "
                "`limit_val_batches` so that it is. Found no validation in all of its epochs."
            )
        if len(self.test_accuracies) < self.last_epochs and not self._diverged:
            raise InputError(
                f"The paper's protocol needs the last {self.last_epochs} of `max_epochs`, and nothing that ends a run "
                f"before them. Found {len(self.test_accuracies)}, at an end after {self._trained} epochs."
            )
        lost = self.last_epochs - len(self.test_accuracies)
        accuracies = [*self.test_accuracies, *[self._chance] * lost]
        test = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
        if self.tested and not test:
            test = {"test/accuracy": self._chance}
        result = {
            "validation": max((row.get("val/accuracy", 0.0) for row in self.epochs), default=0.0),
            "test": test,
            "test_accuracies": self.test_accuracies,
            "last_epochs": sum(accuracies) / self.last_epochs if self.last_epochs else None,
            "epochs": self.epochs,
            "trained": self._trained,
            "diverged": self._diverged,
            **self.clock.spent,
            "device": device(trainer),
            "commit": " ".join(self.commits),
            "versions": versions(),
        }
        self._progress.say(trainer, self._trained or 0)
        if trainer.is_global_zero:  # whole, for others may read it meanwhile
            write_whole(self.folder / "result.json", json.dumps(result))

    def state_dict(self) -> dict[str, Any]:
        """The curves, and how long they took."""
        return {
            "epochs": self.epochs,
            "test_accuracies": self.test_accuracies,
            "commits": self.commits,
            "spent": dict(self.clock.spent),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them; the test of an earlier epoch's checkpoint takes none away."""
        if self._trained is not None:
            return
        self.commits = list(dict.fromkeys([*state_dict["commits"], *self.commits]))  # a run of several says so
        self.epochs, self.test_accuracies = state_dict["epochs"], state_dict["test_accuracies"]
        self.clock.spent = state_dict["spent"]
