"""A network as it was."""

import copy

import torch
from torch import Tensor, nn

from auxlight.distributed import from_first_device


class Snapshot(nn.Module):
    """A copy that holds still: always in evaluation mode, without gradient, until it is renewed.

    Args:
        network: what to copy.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.network.eval()

    def renew(self, network: nn.Module) -> None:
        """Copy parameters and buffers again; batch norm's statistics are the first device's, as in a checkpoint."""
        self.network.load_state_dict(network.state_dict())
        for buffer in self.network.buffers():
            from_first_device(buffer)

    def train(self, mode: bool = True) -> "Snapshot":
        """It does not train."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        """The network's output, in full precision."""
        with torch.autocast(image.device.type, enabled=False):
            output: Tensor = self.network(image)
        return output
