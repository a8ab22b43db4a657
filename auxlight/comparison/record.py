"""What a run of a comparison leaves behind."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torchvision


class RunRecord(L.Callback):
    """Leaves `result.json` in a run's folder once it was tested; its curves survive an interruption.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.epochs: list[dict[str, float]] = []
        self.seconds = 0.0
        self._start = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The clock starts before the first epoch, and an agent's in it."""
        self._start = time.perf_counter()

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A point of the curves."""
        if trainer.sanity_checking:
            return
        self.seconds += time.perf_counter() - self._start
        self._start = time.perf_counter()
        numbers = {name: float(value) for name, value in trainer.callback_metrics.items() if "/" in name}
        self.epochs.append({"epoch": trainer.current_epoch, "seconds": self.seconds, **numbers})

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write everything down, at once and whole."""
        test = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")}
        result = {
            "validation": max((row.get("val/accuracy", 0.0) for row in self.epochs), default=0.0),
            "test": test,
            "epochs": self.epochs,
            "seconds": self.seconds,
            "commit": commit(),
            "versions": {
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "lightning": L.__version__,
            },
        }
        part = self.folder / "result.json.part"
        part.write_text(json.dumps(result))
        part.replace(self.folder / "result.json")

    def state_dict(self) -> dict[str, Any]:
        """The curves."""
        return {"epochs": self.epochs, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.epochs, self.seconds = state_dict["epochs"], state_dict["seconds"]


def commit() -> str:
    """Of the code that runs, with "-dirty" where it was changed; "" outside of a repository."""
    here = str(Path(__file__).parent)
    found = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip()
