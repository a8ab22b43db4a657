"""What every benchmark prints: what ran, where, and the figures as one JSON line."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
import torchvision


def header(**settings: Any) -> None:
    """Command, commit, versions, hardware and the benchmark's own settings."""
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"], capture_output=True, text=True
    ).stdout.strip()
    print(f"command   python {' '.join(sys.argv)}")
    print(f"commit    {commit or 'unknown'}")
    print(f"versions  python {platform.python_version()}, torch {torch.__version__}, "
          f"torchvision {torchvision.__version__}, lightning {lightning.__version__}")  # fmt: skip
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"hardware  {device}, {torch.get_num_threads()} threads, {platform.machine()}")
    print(f"settings  {', '.join(f'{key} {value}' for key, value in settings.items())}")


def interleaved(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each side, measured in turn so that a drifting machine slows all alike; one warm-up each."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def report(figures: dict[str, Any], ok: bool) -> None:
    """The last line."""
    print(json.dumps(figures | {"ok": ok}))
