"""Time and memory of a MAXL meta step: exact, against double backward and finite difference; and of MAXL's epochs.

    python benchmarks/meta_step.py [--quick] [--width W]

VGG16 on images of 32 × 32 in batches of 100, a label network as large as the main one, all sides in one run. A single
step is a training step of the main network alone; a meta step is one of the label network. Epochs are real ones by the
Trainer, with validation on a tenth of the images, in the order single, two-pass, fused, and again. Peak memory (of each
side in a process of its own) is what the step adds to the resident memory of the networks without gradients.

Counted in forward passes f of the main network (backward 2f), a single step is 3f; MAXL's second pass is 3f each for
label network, look-ahead and ∇L_pri(θ⁺), and 2f to 3f for the forward-mode pass, by how many outputs of the
look-ahead's convolutions are kept for it. So an epoch of two passes, with labels at f for the first, is 15f to 16f = 5
to 5.3 single-task epochs, and a fused one 11f to 12f = 3.7 to 4; validation, which all have, lowers both a little.

Targets: an epoch of two passes ≤ 4.8 single-task epochs, fused ≤ 3.8; exact ≤ 0.75 × the time of double backward; peak
memory of the exact step ≤ 2.2 × a single step's, ≤ 1.3 with the label network's forward recomputed.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from common import header, interleaved, report
from torch.optim import SGD

from auxlight import (
    DoubleBackward,
    FiniteDifference,
    ImageDataModule,
    LabelHierarchy,
    LabelNetwork,
    LookAheadGradient,
    MAXLModule,
    MultiHeadVGG,
)
from auxlight.batch import Batch
from auxlight.datamodules.images import ImageSet
from auxlight.hypergradient import Hypergradient

BATCH = 100
HIERARCHY = LabelHierarchy.build(20, 5)
QUIET = {"accelerator": "cpu", "logger": False, "enable_checkpointing": False, "enable_model_summary": False}


class RandomImages(ImageDataModule):
    """Noise, for timing."""

    def __init__(self, size: int) -> None:
        super().__init__(HIERARCHY, batch_size=BATCH)
        self.size = size

    def load_split(self, train: bool) -> ImageSet:
        """See `ImageDataModule.load_split`."""
        size = self.size if train else BATCH
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(256, (size, 3, 32, 32), generator=generator, dtype=torch.uint8)
        return ImageSet(images, torch.arange(size) % 20, None)


class Bare(MAXLModule):
    """Steps without a trainer."""

    @property
    def data(self) -> None:
        """No held-out images."""
        return None

    current_epoch = 0

    def average(self, tensors: Any) -> Any:
        """One device."""
        return dict(tensors)

    def plain_optimizers(self) -> Any:
        """Made in `sides`."""
        return self.pair

    def log_dict(self, *_: Any, **__: Any) -> None:
        """No logger."""

    log = log_dict


def sides(width: float) -> dict[str, Callable[[], Any]]:
    """The steps that are compared."""
    torch.manual_seed(0)
    model = Bare(HIERARCHY, width=width, labeler=LabelNetwork())
    image = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    batch = Batch(image, torch.arange(BATCH) % 20, None, torch.arange(BATCH))
    main = SGD([p for name, p in model.named_parameters() if "labeler" not in name], lr=0.01)
    model.pair = (main, SGD(model.label_network.parameters(), lr=1e-3, weight_decay=5e-4))

    def single() -> None:
        model.primary_losses(model(batch.image), batch).mean().backward()
        main.step()
        main.zero_grad()

    def meta(hypergradient: Hypergradient, recompute: bool = False) -> Callable[[], None]:
        def run() -> None:
            model.hypergradient, model.recompute_labels = hypergradient, recompute
            model.label_step([batch])

        return run

    return {
        "single": single,
        "exact": meta(LookAheadGradient()),
        "exact_recomputed": meta(LookAheadGradient(), recompute=True),
        "double_backward": meta(DoubleBackward()),
        "finite_difference": meta(LookAheadGradient(FiniteDifference())),
    }


class EpochClock(L.Callback):
    """Seconds of each epoch, validation included."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An epoch begins."""
        self.marks.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last one ends."""
        self.marks.append(time.perf_counter())


def epochs(width: float, images: int, rounds: int) -> dict[str, float]:
    """Median seconds of an epoch of each method; the first epoch of each run is a warm-up."""
    makes: dict[str, Callable[[], L.LightningModule]] = {
        "single": lambda: MultiHeadVGG(HIERARCHY, width=width),
        "two_pass": lambda: MAXLModule(HIERARCHY, width=width),
        "fused": lambda: MAXLModule(HIERARCHY, width=width, fused=True),
    }
    times: dict[str, list[float]] = {name: [] for name in makes}
    for _ in range(rounds):
        for name, make in makes.items():
            clock = EpochClock()
            trainer = L.Trainer(max_epochs=2, callbacks=[clock], enable_progress_bar=False, **QUIET)  # type: ignore[arg-type]
            trainer.fit(make(), RandomImages(images))
            times[name].append(clock.marks[2] - clock.marks[1])
    return {name: statistics.median(values) for name, values in times.items()}


def peak_megabytes(side: str, width: float) -> float:
    """What a step of this side adds to the resident memory at its peak, in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--width", str(width)]
    # Every tensor from the system and back to it, so that the resident memory is what is in use.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return float(json.loads(done.stdout.splitlines()[-1]))


def measure_peak(run: Callable[[], Any]) -> float:
    """Peak resident memory of a second call above that before it, in megabytes (Linux)."""
    run()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark
    run()
    return resident("VmHWM") - before


def resident(name: str) -> float:
    """A line of /proc/self/status in megabytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return float(line.split()[1]) / 1024


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, for a minute at most")
    parser.add_argument("--width", type=float, default=0.25, help="factor on VGG16's channels")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(measure_peak(sides(arguments.width)[arguments.side]))
        return
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rounds = 8 if arguments.quick else 20
    images = 600 if arguments.quick or arguments.width > 0.5 else 2000
    header(rounds=rounds, batch=BATCH, width=arguments.width, images=images)
    compared = sides(arguments.width)
    times = interleaved(compared, rounds)
    memory = {side: peak_megabytes(side, arguments.width) for side in compared}
    epoch = epochs(arguments.width, images, rounds=1 if arguments.quick else 3)
    figures: dict[str, Any] = {f"{side}_ms": 1e3 * seconds for side, seconds in times.items()}
    figures |= {f"{side}_peak_mb": value for side, value in memory.items()}
    figures |= {f"{name}_epoch_s": seconds for name, seconds in epoch.items()}
    figures |= {
        "exact_in_single_steps": times["exact"] / times["single"],
        "exact_over_double_backward": times["exact"] / times["double_backward"],
        "finite_difference_over_exact": times["finite_difference"] / times["exact"],
        "two_pass_in_single_epochs": epoch["two_pass"] / epoch["single"],
        "fused_in_single_epochs": epoch["fused"] / epoch["single"],
        "exact_peak_over_single_peak": memory["exact"] / memory["single"],
        "recomputed_peak_over_single_peak": memory["exact_recomputed"] / memory["single"],
        "double_backward_peak_over_single_peak": memory["double_backward"] / memory["single"],
    }
    for name, value in figures.items():
        print(f"{name:40s}{value:10.3f}")
    targets = {
        "two_pass_in_single_epochs": 4.8,
        "fused_in_single_epochs": 3.8,
        "exact_over_double_backward": 0.75,
        "exact_peak_over_single_peak": 2.2,
        "recomputed_peak_over_single_peak": 1.3,
    }
    missed = [name for name, target in targets.items() if figures[name] > target]
    if missed:
        print("missed    " + ", ".join(f"{name} > {targets[name]}" for name in missed))
    report({name: round(value, 4) for name, value in figures.items()}, ok=not missed)


if __name__ == "__main__":
    main()
