"""A network as it was."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.spectral_norm import SpectralNorm

from auxlight.distributed import from_first_device
from auxlight.errors import InputError


class Snapshot(nn.Module):
    """A copy that holds still: always in evaluation mode, without gradient, until it is renewed.

    Batch norm's statistics are those that the network has gathered by then: at the start of a training none.

    Args:
        network: what to copy; its hooks are left out.

    Raises:
        InputError: it cannot be copied.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        try:
            self.network = copy.deepcopy(network).requires_grad_(False)
        except Exception as error:  # lazy layers, old-style weight norm, whatever a trunk of one's own refuses
            raise InputError(
                f"`snapshot` needs a trunk that can be copied. Found {type(network).__name__}, which cannot "
                f"({' '.join(str(error).split())[:200]}): leave it out."
            ) from error
        if any(
            isinstance(hook, SpectralNorm) for part in network.modules() for hook in part._forward_pre_hooks.values()
        ):
            raise InputError(
                "`snapshot` needs a trunk that is what its parameters say. Found old-style spectral norm: use "
                "torch.nn.utils.parametrizations.spectral_norm."
            )
        for part in self.network.modules():  # they watch, or steer, the original
            part._forward_hooks.clear()
            part._forward_pre_hooks.clear()
        self.network.eval()

    @torch.no_grad()
    def renew(self, network: nn.Module) -> None:
        """Copy all parameters and buffers again; buffers are the first device's, as in a checkpoint.

        Args:
            network: of the same structure.
        """
        for mine, yours in zip(self.network.parameters(), network.parameters(), strict=True):
            mine.copy_(yours)
        for own, other in zip(self.network.buffers(), network.buffers(), strict=True):
            own.copy_(other)
            from_first_device(own)

    def train(self, mode: bool = True) -> "Snapshot":
        """It does not train."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The network's output for images (B, C, H, W), in full precision."""
        with torch.autocast(image.device.type, enabled=False):
            output: Tensor = self.network(image)
        return output
