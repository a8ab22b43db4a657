"""Kills a run without warning, again and again, and takes it up from its last checkpoint.

    python benchmarks/kill_and_resume.py [--quick] [--kills N] [--config NAME]

`auxlight fit` on the embedded digits, a narrow network, three epochs. Each trial kills the process (SIGKILL) at a
random moment of its run, the phases of agent and main network alike, and starts it anew with the last checkpoint there
is, if any. Target: the weights at the end equal those of the uninterrupted run, bit for bit, in every trial.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from common import header, report

ROOT = Path(__file__).parent.parent
SHORT = [
    "--data.num_train=400",
    "--data.batch_size=50",
    "--model.depth=11",
    "--model.width=0.0625",
    "--trainer.max_epochs=3",
    "--trainer.enable_progress_bar=false",
]


def start(config: str, folder: Path, checkpoint: Path | None) -> subprocess.Popen[bytes]:
    """A run of the command line in a folder."""
    words = [sys.executable, "-m", "auxlight", "fit"]
    words += [f"--config={ROOT}/configs/{name}.yaml" for name in (config, "data/digits", "small")]
    words += SHORT + ([] if checkpoint is None else [f"--ckpt_path={checkpoint}"])
    quiet = subprocess.DEVNULL
    return subprocess.Popen(words, cwd=folder, stdout=quiet, stderr=quiet, env=os.environ | {"OMP_NUM_THREADS": "1"})


def last_checkpoint(folder: Path) -> Path | None:
    """The newest."""
    return max(folder.glob("logs/*/*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, default=None)


def content(checkpoint: Path) -> Any:
    """Weights and the main optimizer's state."""
    loaded = torch.load(checkpoint, weights_only=True)
    return loaded["state_dict"], loaded["optimizer_states"], loaded["epoch"]


def equal(one: Any, other: Any) -> bool:
    """Bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three kills")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--config", default="wa_rl", help="of configs/")
    arguments = parser.parse_args()
    kills = 3 if arguments.quick else arguments.kills
    header(kills=kills, config=arguments.config)
    random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "whole"
        folder.mkdir()
        begun = time.monotonic()
        if start(arguments.config, folder, None).wait():
            sys.exit("The uninterrupted run failed.")
        seconds = time.monotonic() - begun
        whole = content(last_checkpoint(folder))  # type: ignore[arg-type]
        same, from_scratch = 0, 0
        for trial in range(kills):
            folder = Path(name) / str(trial)
            folder.mkdir()
            process = start(arguments.config, folder, None)
            moment = random.uniform(0.3, 1.0) * seconds  # before that it only imports
            time.sleep(moment)
            process.kill()
            process.wait()
            checkpoint = last_checkpoint(folder)
            epoch = None if checkpoint is None else content(checkpoint)[2]
            from_scratch += checkpoint is None
            failed = start(arguments.config, folder, checkpoint).wait()
            ends = not failed and equal(content(last_checkpoint(folder)), whole)  # type: ignore[arg-type]
            same += ends
            outcome = "same" if ends else "OTHER"
            print(f"killed after {moment:5.1f} of {seconds:.1f} s, taken up from epoch {epoch}: {outcome}", flush=True)
    figures = {"kills": kills, "same": same, "without_checkpoint": from_scratch}
    report(figures, ok=same == kills)


if __name__ == "__main__":
    main()
