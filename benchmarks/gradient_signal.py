"""How much of an image's label gradient belongs to the image? The share that a label network can learn from.

    python benchmarks/gradient_signal.py [--quick] [--root DIR] [--num_train N] [--width W]

A main network trains on MAXL's labels. After some epochs, 50 images get their exact look-ahead gradient (for uniform
labels, centred inside the block) in 8 batches, each with 50 other images and augmentations of its own. Printed is the
share of the gradient's variance over draws and images that is the images' own, free of bias by the number of draws.
With --root on CIFAR-100 with 20 superclasses from there; without, on scikit-learn's digits.

There is no target: `ok` says that the run ended.
"""

import argparse
import logging
import warnings
from functools import partial

import lightning as L
import torch
from common import header, report
from torch.optim import SGD

from auxlight import (
    AuxiliaryTarget,
    CIFAR100SuperclassDataModule,
    DigitsDataModule,
    ImageDataModule,
    LabelNetwork,
    LookAheadGradient,
    MAXLModule,
)
from auxlight.datamodules.images import Draw

IMAGES, DRAWS = 50, 8


class Probe(L.Callback):
    """Measures the share at the end of the given epochs, without leaving a trace in the run."""

    def __init__(self, epochs: tuple[int, ...]) -> None:
        self.epochs = epochs
        self.shares: dict[str, float] = {}

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure."""
        epoch = trainer.current_epoch
        if epoch not in self.epochs or not isinstance(pl_module, MAXLModule) or pl_module.data is None:
            return
        dataset = pl_module.data.loader("train").dataset
        generator = torch.Generator().manual_seed(epoch)
        order = torch.randperm(len(dataset), generator=generator)  # type: ignore[arg-type]
        images, others = order[:IMAGES], order[IMAGES:]
        slopes = []
        for draw in range(DRAWS):
            rest = others[torch.randperm(len(others), generator=generator)[:IMAGES]]
            raw = dataset[Draw(torch.cat([images, rest]), 1000 * epoch + draw)]
            batch = trainer.strategy.batch_to_device(raw)
            block = pl_module.label_network.mask[batch.primary].float()
            target = AuxiliaryTarget(block / block.sum(1, keepdim=True), torch.ones(len(block)))
            found = LookAheadGradient()(pl_module.problem([batch], [target])).targets[0].probabilities * block
            slope = ((found - found.sum(1, keepdim=True) / block.sum(1, keepdim=True)) * block)[:IMAGES]
            slopes.append(slope / slope.square().mean().sqrt())
        every = torch.stack(slopes)
        # E|mean over draws|² = own + (total − own) / DRAWS
        total, mean = float(every.square().mean()), float(every.mean(0).square().mean())
        self.shares[f"epoch_{epoch}"] = (DRAWS * mean - total) / ((DRAWS - 1) * total)
        print(f"epoch {epoch}: share of the image {self.shares[f'epoch_{epoch}']:.4f}", flush=True)


def main() -> None:
    """Train, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits: a minute at most")
    parser.add_argument("--root", help="folder with CIFAR-100")
    parser.add_argument("--num_train", type=int, default=5000)
    parser.add_argument("--width", type=float, default=0.125)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    header(root=bool(arguments.root), num_train=arguments.num_train, width=arguments.width)
    L.seed_everything(0, verbose=False)
    data: ImageDataModule = (
        CIFAR100SuperclassDataModule(arguments.root, num_train=arguments.num_train)
        if arguments.root and not arguments.quick
        else DigitsDataModule()
    )
    labeler = LabelNetwork(shared_trunk=True)
    module = MAXLModule(
        data.hierarchy, width=arguments.width, optimizer=partial(SGD, lr=0.05), labeler=labeler, fused=True
    )
    probe = Probe((0, 3, 7))
    L.Trainer(
        max_epochs=8, accelerator="cpu", logger=False, callbacks=[probe], limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(module, data)  # fmt: skip
    report({name: round(value, 4) for name, value in probe.shares.items()}, ok=len(probe.shares) == 3)


if __name__ == "__main__":
    main()
