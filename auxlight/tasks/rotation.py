"""Which way up an image is."""

import torch
from torch import Tensor, nn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.functional import focal_loss
from auxlight.networks.heads import Head
from auxlight.tasks.base import AuxiliaryTask, TaskPlace

QUARTERS = 4


class RotationTask(AuxiliaryTask):
    """By how many quarter turns was the image rotated? Needs no label (Gidaris et al., 2018).

    Args:
        weight: see `AuxiliaryTask`.
        every_turn: all four turns of each image, their mean loss its own, as Gidaris et al. and ARML take them (four
            forward passes); False: one turn by chance, a fourth of the cost.
    """

    draws = True
    head: nn.Module

    def __init__(self, weight: float = 1.0, every_turn: bool = False) -> None:
        super().__init__(weight)
        self.every_turn = every_turn

    def bind(self, place: TaskPlace) -> None:
        """See `AuxiliaryTask.bind`."""
        self.head = Head(place.feature_dim, QUARTERS, place.head_dim)
        self.focal_gamma = place.focal_gamma

    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `AuxiliaryTask.forward`."""
        count = len(batch.image)
        if self.every_turn:
            turns = torch.arange(QUARTERS).repeat_interleave(count)
            image = rotated(batch.image.repeat(QUARTERS, 1, 1, 1), turns)
        else:
            turns = torch.randint(QUARTERS, (count,))
            image = rotated(batch.image, turns)
        losses = focal_loss(self.head(trunk(image)), turns.to(image.device), self.focal_gamma)
        losses = losses.view(-1, count).mean(0)
        return losses, losses.new_ones(count)


def rotated(image: Tensor, turns: Tensor) -> Tensor:
    """Square images (B, C, H, H), each by its own number of quarter turns (B,) anticlockwise.

    Raises:
        InputError: images that are not square.
    """
    if image.shape[-1] != image.shape[-2]:
        raise InputError(
            "RotationTask needs square images. "
            f"Found {image.shape[-2]} × {image.shape[-1]}: crop them (NpzDataModule: `image_size`)."
        )
    turns = turns.to(image.device)
    turned = image
    for quarter in range(1, QUARTERS):
        turned = torch.where((turns == quarter)[:, None, None, None], image.rot90(quarter, (2, 3)), turned)
    return turned.contiguous(memory_format=torch.channels_last)
