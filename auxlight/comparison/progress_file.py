"""Where a run says how far it is, for whoever looks at it from outside."""

import json
import time
from pathlib import Path

import lightning as L

from auxlight.outputs import write_whole


class ProgressFile:
    """How many epochs are finished, of how many (None where only steps or time are limited), and since when.

    Args:
        path: of the JSON file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._said: dict[str, float | None] = {}

    def begin(self, trainer: L.Trainer) -> None:
        """A training, from its first epoch or from the one at which it goes on."""
        epoch = trainer.current_epoch
        self._said = {"first": epoch, "epoch": epoch, "epochs": num_epochs(trainer), "start": time.time()}
        self.say(trainer, epoch)

    def say(self, trainer: L.Trainer, epoch: int) -> None:
        """So many epochs are finished by now; of what is only validated or tested nothing is said."""
        if self._said and trainer.is_global_zero:
            self._said |= {"epoch": epoch, "time": time.time()}
            write_whole(self.path, json.dumps(self._said))


def num_epochs(trainer: L.Trainer) -> int | None:
    """Of the run; None where only its steps or its time are limited."""
    return trainer.max_epochs if trainer.max_epochs and trainer.max_epochs > 0 else None
