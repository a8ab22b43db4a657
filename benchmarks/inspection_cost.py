"""What `Inspection` costs at its defaults: the seconds in its hooks as a share of the others of the same fit.

Target: below 5 % of training time in every job. The jobs are short on purpose (an inspection costs the same whether an
epoch has 12 batches or 450): `make fit`'s own, the cheapest epochs that there are (human labels on the digits), and
human labels on 5,000 images of 20 classes. A first fit, not counted, pays for what is imported and cached once.

    python benchmarks/inspection_cost.py [--quick]
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from common import header, report
from lightning.pytorch.loggers import TensorBoardLogger
from torch.optim import SGD

from auxlight import AgentLabels, DigitsDataModule, HumanLabels, MultiHeadVGG, NpzDataModule, RLAuxCallback
from auxlight.inspection import Inspection

TARGET = 0.05
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}


class TimedInspection(Inspection):
    """Adds up the seconds that pass in its hooks."""

    seconds = 0.0


def _timed(name: str) -> Callable[..., None]:
    def hook(self: TimedInspection, *arguments: Any) -> None:
        start = time.perf_counter()
        getattr(Inspection, name)(self, *arguments)
        self.seconds += time.perf_counter() - start

    return hook


for _name in ("on_fit_start", "on_train_epoch_start", "on_train_batch_end", "on_train_epoch_end", "on_train_end"):
    setattr(TimedInspection, _name, _timed(_name))


class FitTime(L.Callback):
    """Seconds from the first to the last step, and what comes after it."""

    def on_train_start(self, *_: Any) -> None:
        """Begin."""
        self.start = time.perf_counter()

    def on_fit_end(self, *_: Any) -> None:
        """Read the clock."""
        self.seconds = time.perf_counter() - self.start


def arrays(folder: Path) -> None:
    """Made-up images of 20 classes with 5 sub-classes each: what is timed does not depend on what they show."""
    rng = np.random.default_rng(0)
    made = {}
    for split, count in (("train", 5556), ("test", 100)):
        sub = rng.permutation(np.arange(count) % 100)
        made |= {f"{split}_images": rng.integers(256, size=(count, 32, 32, 3), dtype=np.uint8),
                 f"{split}_primary": sub // 5, f"{split}_auxiliary": sub}  # fmt: skip
    np.savez(folder / "images.npz", **made)


def share(data: Any, agent: bool, epochs: int, folder: Path) -> tuple[float, float]:
    """Share of the inspection, and seconds of the whole fit."""
    L.seed_everything(0, verbose=False)
    labeler = AgentLabels(weighted=True) if agent else HumanLabels()
    module = MultiHeadVGG(data.hierarchy, labeler=labeler, width=0.125, optimizer=partial(SGD, lr=0.05))
    inspection, fit = TimedInspection(), FitTime()
    callbacks = [*([RLAuxCallback()] if agent else []), inspection, fit]
    logger = TensorBoardLogger(folder, default_hp_metric=False)
    L.Trainer(max_epochs=epochs, callbacks=callbacks, logger=logger, enable_checkpointing=False, **QUIET).fit(
        module, data
    )
    return inspection.seconds / (fit.seconds - inspection.seconds), fit.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the large job")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arrays(folder)
        jobs = {"digits_wa_rl": (DigitsDataModule(), True, 8), "digits_human": (DigitsDataModule(), False, 40)}
        if not quick:
            jobs["images_human"] = (NpzDataModule(folder), False, 20)
        header(width=0.125, every_n_epochs=Inspection().every_n_epochs, num_images=Inspection().num_images)
        share(DigitsDataModule(), False, 1, folder)
        figures: dict[str, Any] = {}
        for job, (data, agent, epochs) in jobs.items():
            found, seconds = share(data, agent, epochs, folder)
            figures[job] = round(found, 4)
            print(f"{job:14} {epochs:3} epochs  {seconds:6.1f} s  inspection {found:.1%}")
    report(figures, all(found < TARGET for found in figures.values()))


if __name__ == "__main__":
    main()
