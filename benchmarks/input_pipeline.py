"""Share of a training step that the input pipeline takes, beside torchvision's pipeline of one image at a time.

    python benchmarks/input_pipeline.py [--quick] [--root DIR]

Quarter-width VGG16, batches of 100 images of 32 × 32. Draw, augment and normalise a batch from memory, against one
training step on it. With `--root` the images are CIFAR-100's (a mirror or torchvision's files); without, made-up ones,
which cost the same. Target: the pipeline takes under 10 % of the step.
"""

import argparse
from itertools import cycle

import numpy as np
import torch
from common import header, interleaved, report
from PIL import Image
from torch.optim import SGD
from torch.utils.data import DataLoader
from torchvision import transforms

from auxlight import CIFAR100SuperclassDataModule, HumanLabels, ImageDataModule, LabelHierarchy, MultiHeadVGG
from auxlight.datamodules.images import ImageSet


class MadeUpImages(ImageDataModule):
    """Random pixels, of CIFAR-100's size and classes."""

    def __init__(self) -> None:
        super().__init__(
            LabelHierarchy.build(20, 5),
            root=".",
            batch_size=100,
            num_train=None,
            val_split=0.1,
            download=False,
            seed=0,
            crop_padding=4,
            flip=True,
            mean=(0.5, 0.5, 0.5),
            std=(0.2, 0.2, 0.2),
        )

    def load_split(self, train: bool) -> ImageSet:
        """10,000 images."""
        generator = torch.Generator().manual_seed(int(train))
        image = torch.randint(256, (10_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
        auxiliary = torch.arange(10_000) % 100
        return ImageSet(image, auxiliary // 5, auxiliary)


def torchvision_loader(images: ImageSet) -> DataLoader:
    """The usual way: a PIL image at a time through torchvision's transforms."""
    pipeline = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.5, 0.5, 0.5), (0.2, 0.2, 0.2)),
        ]
    )
    arrays = images.image.permute(0, 2, 3, 1).numpy()

    class PerImage(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return pipeline(Image.fromarray(np.asarray(arrays[index]))), int(images.primary[index])

    return DataLoader(PerImage(), batch_size=100, shuffle=True)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, for a minute at most")
    parser.add_argument("--root", help="folder of CIFAR-100")
    arguments = parser.parse_args()
    rounds = 15 if arguments.quick else 60
    data = CIFAR100SuperclassDataModule(arguments.root) if arguments.root else MadeUpImages()
    header(rounds=rounds, images="CIFAR-100" if arguments.root else "made up", batch=100, width=0.25)
    data.setup()
    torch.manual_seed(0)
    model = MultiHeadVGG(data.hierarchy, width=0.25, labeler=HumanLabels())
    optimizer = SGD(model.parameters(), lr=0.01)
    ours, theirs = cycle(data.train_dataloader()), cycle(torchvision_loader(data.loader("train").dataset.images))
    batch = data.on_after_batch_transfer(next(ours), 0)

    def step() -> None:
        optimizer.zero_grad()
        model.step(batch).loss.backward()
        optimizer.step()

    times = interleaved(
        {
            "auxlight": lambda: data.on_after_batch_transfer(next(ours), 0),
            "torchvision": lambda: next(theirs),
            "step": step,
        },
        rounds,
    )
    share = times["auxlight"] / times["step"]
    figures = {
        "pipeline_ms": 1e3 * times["auxlight"],
        "torchvision_ms": 1e3 * times["torchvision"],
        "step_ms": 1e3 * times["step"],
        "share_of_step": share,
        "torchvision_share_of_step": times["torchvision"] / times["step"],
        "speedup_over_torchvision": times["torchvision"] / times["auxlight"],
    }
    for name, value in figures.items():
        print(f"{name:28s}{value:10.4f}")
    report({name: round(value, 5) for name, value in figures.items()}, ok=share < 0.10)


if __name__ == "__main__":
    main()
