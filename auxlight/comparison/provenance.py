"""Where a result comes from: which code, which versions, which device."""

import subprocess
from pathlib import Path

import lightning as L
import torch
import torchvision


def versions() -> dict[str, str]:
    """Of the libraries that decide numbers."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__, "lightning": L.__version__}


def device(trainer: L.Trainer) -> str:
    """Of the network: "CPU", or the name of the GPU; with their number where there are several."""
    root = trainer.strategy.root_device
    name = torch.cuda.get_device_name(root) if root.type == "cuda" else root.type.upper()
    return name if trainer.world_size == 1 else f"{trainer.world_size} × {name}"


def commit() -> str:
    """Of the code, to be asked for before it runs; with "-dirty" where it was changed.

    "" outside of a repository, or without git.
    """
    here = str(Path(__file__).parent)
    try:
        found = subprocess.run(["git", "-C", here, "describe", "--always", "--dirty"], capture_output=True, text=True)
    except OSError:
        return ""
    return found.stdout.strip()
