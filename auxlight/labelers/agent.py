"""Labels chosen by a reinforcement learning agent."""

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.actions import LabelActions
from auxlight.labelers.base import Labeler
from auxlight.networks.agent import AgentNetwork
from auxlight.networks.vgg import own_trunk


class AgentLabels(Labeler):
    """The agent of RL-AUX and, with a weight head, WA-RL: it sees an image and names its label (and weight).

    `RLAuxCallback` trains the agent; here it acts, always by its most probable action. Its network belongs to the
    module's checkpoint, so a trained agent labels wherever the module is loaded.

    Args:
        weighted: give each label a weight as well (WA-RL).
        weight_levels: number of weight levels, from 2⁻⁵ to 2⁵ (Eq. 8).
        block_relative: see `LabelActions`.
        sharpness: see `LabelActions`.
        trunk: the agent's eyes, images → (B, trunk.feature_dim); by default a VGG of the main network's depth and
            width with group norm (PPO compares log-probabilities from evaluation and from training, which batch norm
            would make differ; the paper's agent has batch norm).
        feature_dim: size of the features under the agent's heads.
        untrained: label even though the agent has never played: the control "untrained agent".

    Raises:
        InputError: without `trunk` where the main trunk is no VGG, a trunk without `feature_dim`, or training with
            an agent that has never played.
    """

    network: AgentNetwork
    actions: LabelActions
    epochs_played: Tensor

    def __init__(
        self,
        weighted: bool = False,
        weight_levels: int = 21,
        block_relative: bool = False,
        sharpness: float = 1.0,
        trunk: nn.Module | None = None,
        feature_dim: int = 256,
        untrained: bool = False,
    ) -> None:
        super().__init__()
        if feature_dim < 1:
            raise InputError(f"`feature_dim` must be at least 1. Found feature_dim={feature_dim}.")
        self.weight_levels = weight_levels if weighted else None
        self.block_relative = block_relative
        self.sharpness = sharpness
        self.feature_dim = feature_dim
        self.untrained = untrained
        self._trunk = [trunk]  # in a list: it becomes a submodule only as part of the network
        self.register_buffer("epochs_played", torch.zeros((), dtype=torch.int64))

    def bind(self, hierarchy: LabelHierarchy, trunk: nn.Module, feature_dim: int) -> None:
        """Make the agent's network."""
        super().bind(hierarchy, trunk, feature_dim)
        self.actions = LabelActions(hierarchy, self.weight_levels, self.block_relative, self.sharpness)
        eyes, eyes_dim = own_trunk(self, self._trunk[0], trunk, norm="group")
        self.network = AgentNetwork(eyes, eyes_dim, self.feature_dim, self.actions.sizes)
        # Trained by the agent's own optimizer in its own phase; the main optimizer and DDP leave it alone.
        self.network.requires_grad_(False)
        self.network.eval()

    def train(self, mode: bool = True) -> "AgentLabels":
        """The agent acts in evaluation mode, whatever the main network does."""
        super().train(mode)
        if "network" in self._modules:
            self.network.eval()
        return self

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        if self.training and not self.untrained and not self.epochs_played:
            raise InputError(
                "`labeler` AgentLabels needs an agent that has played. Found one that has not: add RLAuxCallback to "
                "the trainer's callbacks, or set `untrained: true` for the control."
            )
        with torch.no_grad():
            return self.actions.target(self.network.act(batch.image), batch.primary)
