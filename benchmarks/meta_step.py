"""Time and memory of a MAXL meta step: exact, against double backward and finite difference.

    python benchmarks/meta_step.py [--quick] [--width W]

VGG16 on images of 32 × 32 in batches of 100, a label network as large as the main one, all sides in one run. A plain
step is one training step of the main network on given labels; a meta step is one of the label network. Epochs are
counted in single-task epochs: MAXL's two passes are one label forward, one plain step and one meta step per batch.
Peak memory (of each side in a process of its own) is what the step adds to the resident memory before it.

Targets: an epoch of two passes ≤ 4.8 single-task epochs, exact ≤ 0.75 × the time of double backward, peak memory of the
exact step ≤ 2.2 × a plain step's.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import header, interleaved, report
from torch.optim import SGD

from auxlight import LabelNetwork, MAXLModule
from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.functional import batch_entropy
from auxlight.hypergradient import DoubleBackward, Hypergradient, LookAheadGradient
from auxlight.influence import FiniteDifference
from auxlight.lookahead import LookAhead
from auxlight.modules.joint_losses import JointLosses

BATCH = 100


def sides(width: float) -> dict[str, Callable[[], Any]]:
    """The steps that are compared."""
    torch.manual_seed(0)
    model = MAXLModule([5] * 20, width=width, labeler=LabelNetwork())
    batch = Batch(
        torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last),
        torch.arange(BATCH) % 20,
        None,
        torch.arange(BATCH),
    )
    network, labels = JointLosses(model), model.label_network
    main = SGD(network.parameters(), lr=0.01)
    label = SGD(labels.parameters(), lr=1e-3, weight_decay=5e-4)

    def single() -> None:
        main.zero_grad()
        model.primary_losses(model(batch.image), batch).mean().backward()
        main.step()

    def plain() -> None:
        main.zero_grad()
        model.step(batch).loss.backward()
        main.step()

    def meta(hypergradient: Hypergradient) -> Callable[[], None]:
        def run() -> None:
            target = labels.generate(batch)
            detached = AuxiliaryTarget(*(part.detach() for part in target))
            slope = hypergradient(network, batch, detached, batch, LookAhead(main))
            loss = (slope.probabilities * target.probabilities).sum() + 0.2 * batch_entropy(target.probabilities)
            label.zero_grad()
            loss.backward()
            label.step()

        return run

    return {
        "single": single,
        "labelled": plain,
        "exact": meta(LookAheadGradient()),
        "double_backward": meta(DoubleBackward()),
        "finite_difference": meta(LookAheadGradient(FiniteDifference())),
    }


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
    rounds = 8 if arguments.quick else 20
    header(rounds=rounds, batch=BATCH, width=arguments.width)
    times = interleaved(sides(arguments.width), rounds)
    measured = ("single", "labelled", "exact", "double_backward", "finite_difference")
    memory = {side: peak_megabytes(side, arguments.width) for side in measured}
    figures: dict[str, Any] = {f"{side}_ms": 1e3 * seconds for side, seconds in times.items()}
    figures |= {f"{side}_peak_mb": value for side, value in memory.items()}
    figures |= {
        "exact_in_single_steps": times["exact"] / times["single"],
        "maxl_epoch_in_single_epochs": (times["labelled"] + times["exact"]) / times["single"],
        "exact_over_double_backward": times["exact"] / times["double_backward"],
        "finite_difference_over_exact": times["finite_difference"] / times["exact"],
        "exact_peak_over_single_peak": memory["exact"] / memory["single"],
        "double_backward_peak_over_single_peak": memory["double_backward"] / memory["single"],
    }
    for name, value in figures.items():
        print(f"{name:40s}{value:10.3f}")
    ok = (
        figures["maxl_epoch_in_single_epochs"] <= 4.8
        and figures["exact_over_double_backward"] <= 0.75
        and figures["exact_peak_over_single_peak"] <= 2.2
    )
    report({name: round(value, 4) for name, value in figures.items()}, ok=ok)


if __name__ == "__main__":
    main()
