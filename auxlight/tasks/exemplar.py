"""Features that survive what one does to an image."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.networks.buffers import kept_buffers, lent_buffers
from auxlight.tasks.base import AuxiliaryTask, TaskPlace


class ExemplarTask(AuxiliaryTask):
    """Exemplar-MT, self-supervised (Dosovitskiy et al., 2014, with a mean teacher; as in ARML's and AuxiNash's SSL).

    ℓ_i = 1 − cos(trunk(t(x_i)), teacher(x_i)): the features of an image that was flipped, given noise and cut out of
    should be those that the teacher, a moving average of the trunk, has of the image itself. t is drawn for each image
    anew (in ARML's code the flip and the hole are the batch's); batch norm's statistics do not count the images t(x).

    Args:
        weight: see `AuxiliaryTask`.
        noise: standard deviation of the noise, in units of the batch's standard deviation.
        hole: side of the square hole, as a share of the image's; ARML: 0.5.
        memory: share of the teacher that is kept from step to step; ARML: 0.95.

    Raises:
        InputError: values out of range.
    """

    draws = True
    teacher: AveragedModel

    def __init__(self, weight: float = 1.0, noise: float = 0.1, hole: float = 0.5, memory: float = 0.95) -> None:
        super().__init__(weight)
        if not 0 <= noise < float("inf") or not 0 <= hole < 1 or not 0 <= memory < 1:
            raise InputError(
                "ExemplarTask needs `noise` ≥ 0, and `hole` and `memory` in [0, 1). "
                f"Found noise={noise}, hole={hole}, memory={memory}."
            )
        self.noise = noise
        self.hole = hole
        self.memory = memory

    def bind(self, place: TaskPlace) -> None:
        """See `AuxiliaryTask.bind`."""
        self.teacher = AveragedModel(place.trunk, multi_avg_fn=get_ema_multi_avg_fn(self.memory))  # type: ignore[no-untyped-call]
        self.teacher.requires_grad_(False)

    def before_step(self, trunk: nn.Module) -> None:
        """The teacher follows."""
        self.teacher.update_parameters(trunk)

    def forward(self, trunk: nn.Module, features: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `AuxiliaryTask.forward`."""
        with torch.no_grad(), kept_buffers(self.teacher):
            goal = self.teacher(batch.image)
        with lent_buffers(trunk.modules()):
            seen = trunk(self.transformed(batch.image))
        losses = 1 - F.cosine_similarity(seen, goal, 1)
        return losses, torch.ones_like(losses)

    def transformed(self, image: Tensor) -> Tensor:
        """t(x): each image (B, C, H, W) flipped by a coin's toss, with noise, and with a hole of the mean value 0."""
        count, _, height, width = image.shape
        flip = torch.rand(count) < 0.5
        centre = torch.rand(2, count) * torch.tensor([[height], [width]])
        noise = torch.randn(image.shape).to(image)
        image = torch.where(flip.to(image.device)[:, None, None, None], image.flip(-1), image)
        image = image + self.noise * image.std() * noise
        inside = [
            (torch.arange(size)[None] + 0.5 - middle[:, None]).abs() <= self.hole * size / 2
            for size, middle in zip((height, width), centre, strict=True)
        ]
        gap = (inside[0][:, :, None] & inside[1][:, None, :])[:, None].to(image.device)
        return image.masked_fill(gap, 0.0).contiguous(memory_format=torch.channels_last)
