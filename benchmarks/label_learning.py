"""Does a label network learn labels? Its labels over training, for `maxl` and `maxl_sharp`, beside the controls.

    python benchmarks/label_learning.py [--quick] [--root DIR] [--num_train N] [--epochs N] [--width W] [--seeds N]

With --root, CIFAR-100 with 20 superclasses from there; without, scikit-learn's digits (even or odd). After each epoch
the labels of all training images, without augmentation: top probability and entropy of an image's label (ψ = 5: 0.2 and
1.609 are uniform), and their NMI with the human sub-classes, inside each primary class and averaged. At the end the
validation accuracy, which is no selection: the last epoch counts.

There is no target: `ok` says that all runs ended.
"""

import argparse
import statistics
import warnings
from functools import partial
from typing import Any

import lightning as L
import torch
from common import header, report
from sklearn.metrics import normalized_mutual_info_score
from torch.optim import SGD, Adam
from torch.optim.lr_scheduler import StepLR

from auxlight import (
    CIFAR100SuperclassDataModule,
    DigitsDataModule,
    HumanLabels,
    ImageDataModule,
    LabelNetwork,
    MAXLModule,
    MultiHeadVGG,
    RandomLabels,
    UniformLabels,
)
from auxlight.modules import AuxiliaryClassifier


def methods(schedule: Any) -> dict[str, Any]:
    """Name → (data module's hierarchy, network arguments) → module."""
    maxl = {"label_optimizer": partial(SGD, lr=1e-3, weight_decay=5e-4), "label_scheduler": schedule}
    sharp = {"label_optimizer": partial(Adam, lr=1e-3), "label_scheduler": schedule}
    return {
        "single": MultiHeadVGG,
        "uniform": lambda *a, **k: MultiHeadVGG(*a, labeler=UniformLabels(), **k),
        "random": lambda *a, **k: MultiHeadVGG(*a, labeler=RandomLabels(), **k),
        "human": lambda *a, **k: MultiHeadVGG(*a, labeler=HumanLabels(), **k),
        "maxl": lambda *a, **k: MAXLModule(*a, labeler=LabelNetwork(), **maxl, **k),
        "maxl_sharp": lambda *a, **k: MAXLModule(
            *a, labeler=LabelNetwork(), normalize_hypergradient=True, entropy_weight=1.0, **sharp, **k
        ),
    }


class LabelDiary(L.Callback):
    """What the label network says about the training images, after each epoch."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Label all training images in evaluation mode."""
        if not isinstance(pl_module, MAXLModule):
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        pl_module.eval()
        parts = []
        for raw in data.loader("train"):
            batch = trainer.strategy.batch_to_device(raw)
            parts.append((pl_module.label_network.generate(batch).probabilities, batch.primary, batch.auxiliary))
        pl_module.train()
        probabilities, primary, human = (torch.cat(part) for part in zip(*parts, strict=True))
        chosen = probabilities.argmax(1)
        nmi = [
            normalized_mutual_info_score(human[primary == y], chosen[primary == y]) for y in primary.unique().tolist()
        ]
        self.rows.append(
            {
                "top_probability": float(probabilities.max(1).values.mean()),
                "image_entropy": float(torch.special.entr(probabilities).sum(1).mean()),
                "nmi": statistics.mean(nmi),
            }
        )


def run(make: Any, data: ImageDataModule, seed: int, arguments: argparse.Namespace, schedule: Any) -> Any:
    """Train once; the diary, and the last validation accuracy."""
    L.seed_everything(seed, verbose=False)
    module: AuxiliaryClassifier = make(
        data.hierarchy, width=arguments.width, optimizer=partial(SGD, lr=arguments.lr), scheduler=schedule
    )
    diary = LabelDiary()
    trainer = L.Trainer(
        max_epochs=arguments.epochs, accelerator="cpu", logger=False, callbacks=[diary],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, data)
    return diary.rows, float(trainer.callback_metrics["val/accuracy"])


def main() -> None:
    """Train every method and print its labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="digits, few epochs, one seed: a minute at most")
    parser.add_argument("--root", help="folder with CIFAR-100")
    parser.add_argument("--num_train", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--width", type=float, default=0.125)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=list(methods(None)))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.epochs, arguments.seeds, arguments.methods = 3, 1, ["single", "maxl", "maxl_sharp"]
    warnings.filterwarnings("ignore")
    header(**{name: value for name, value in vars(arguments).items() if name != "quick"})
    schedule = partial(StepLR, step_size=max(1, arguments.epochs // 4), gamma=0.5)
    figures: dict[str, Any] = {}
    for name in arguments.methods:
        accuracies = []
        for seed in range(arguments.seeds):
            data: ImageDataModule = (
                CIFAR100SuperclassDataModule(arguments.root, num_train=arguments.num_train)
                if arguments.root
                else DigitsDataModule()
            )
            rows, accuracy = run(methods(schedule)[name], data, seed, arguments, schedule)
            accuracies.append(accuracy)
            print(f"{name} seed {seed}: validation accuracy {accuracy:.4f}", flush=True)
            for epoch, row in enumerate(rows):
                if epoch % max(1, arguments.epochs // 10) == 0 or epoch == arguments.epochs - 1:
                    values = "  ".join(f"{key} {value:.3f}" for key, value in row.items())
                    print(f"  epoch {epoch:3d}  {values}", flush=True)
            if rows:
                figures[f"{name}_last_labels_seed_{seed}"] = {key: round(value, 4) for key, value in rows[-1].items()}
        figures[f"{name}_val_accuracies"] = [round(value, 4) for value in accuracies]
    report(figures, ok=True)


if __name__ == "__main__":
    main()
