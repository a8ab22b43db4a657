"""What the devices of a distributed run share."""

from collections.abc import Callable, Mapping

import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor
from torch import distributed as dist

# Named tensors → their means over the devices.
Average = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def alone(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means over one device."""
    return dict(tensors)


def mean_over_devices(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor's mean over all devices, in one message; every device must call with tensors of the same shapes."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors.values()])
    dist.all_reduce(flat)
    parts = torch.split(flat / dist.get_world_size(), [tensor.numel() for tensor in tensors.values()])
    return {
        name: part.view_as(tensor).to(tensor.dtype) for (name, tensor), part in zip(tensors.items(), parts, strict=True)
    }


def from_first_device(tensor: Tensor) -> None:
    """Give every device the first one's tensor; alone, nothing happens."""
    if dist.is_available() and dist.is_initialized():
        dist.broadcast(tensor, 0)


def leave_devices() -> None:
    """Destroy the process group, whoever made it, before Python ends.

    Lightning destroys NCCL's alone. Gloo's threads still hold tensors when the interpreter is torn down, and abort a
    finished run ("terminate called without an active exception", exit code -6) one process in ten.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def holds_whole_parameters(strategy: Strategy) -> bool:
    """Whether each device has all parameters, and gradients are averaged at most."""
    return isinstance(strategy, SingleDeviceStrategy | DDPStrategy) and not isinstance(strategy, DeepSpeedStrategy)
