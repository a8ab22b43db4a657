"""Labels chosen by a reinforcement learning agent."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.actions import LabelActions
from auxlight.labelers.base import Labeler
from auxlight.networks.agent import AgentNetwork
from auxlight.networks.snapshot import Snapshot
from auxlight.networks.vgg import own_trunk

Explorer = Callable[[Batch, Tensor], AuxiliaryTarget]


class AgentLabels(Labeler):
    """The agent of RL-AUX and, with a weight head, WA-RL: it sees an image and names its label (and weight).

    `RLAuxCallback` trains the agent; here it acts, always by its most probable action. Its network belongs to the
    module's checkpoint, so a trained agent labels wherever the module is loaded.

    Args:
        weighted: give each label a weight as well (WA-RL).
        weight_levels: see `LabelActions`; the paper: 21.
        weight_exponents: see `LabelActions`.
        block_relative: see `LabelActions`.
        sharpness: see `LabelActions`.
        trunk: the agent's eyes, images → (B, trunk.feature_dim), of which what is frozen stays so; by default a VGG of
            the main network's depth and width with group norm (PPO compares log-probabilities from evaluation and from
            training, which batch norm would make differ; the paper's agent has batch norm).
        shared_trunk: no eyes of its own: the agent sees the main network's features (detached, behind a layer norm),
            so that labels cost almost nothing. The paper's agent has its own, which need not learn what the main
            network happens to know.
        snapshot: with a shared trunk: the features are those of the main network as it was when the agent last began
            to play, in evaluation mode (without `RLAuxCallback`, as it was made). An agent that does not learn in
            between then labels alike while the main network trains on its labels. Costs a forward pass of the trunk,
            and a second trunk in the checkpoint.
        sees_primary: show the agent the image's primary label, as a one-hot vector beside the eyes' output. In the
            paper it has to guess which block its label should lie in.
        feature_dim: size of the features under the agent's heads.
        untrained: label even though the agent has never played: the control "untrained agent".

    Attributes:
        main_feature_dim: size of the main network's features, from `bind` on.
        snapshot: the copy of the main network's trunk, where asked for, from `bind` on.
        explorer: while set, labels training batches in the agent's place, from the batch and what it sees of it;
            `RLAuxCallback` sets it to let the agent explore online.

    Raises:
        InputError: a trunk beside a shared one; a snapshot without a shared trunk, or of one that cannot be copied;
            without `trunk` where the main trunk is no VGG, a trunk without `feature_dim`, or training with an agent
            that has never played.
    """

    network: AgentNetwork
    snapshot: Snapshot
    actions: LabelActions
    epochs_played: Tensor
    main_feature_dim: int

    def __init__(
        self,
        weighted: bool = False,
        weight_levels: int = 21,
        weight_exponents: tuple[float, float] = (-5.0, 5.0),
        block_relative: bool = False,
        sharpness: float = 1.0,
        trunk: nn.Module | None = None,
        shared_trunk: bool = False,
        snapshot: bool = False,
        sees_primary: bool = False,
        feature_dim: int = 256,
        untrained: bool = False,
    ) -> None:
        super().__init__()
        if feature_dim < 1:
            raise InputError(f"`feature_dim` must be at least 1. Found feature_dim={feature_dim}.")
        if shared_trunk and trunk is not None:
            raise InputError("`shared_trunk` has the main network's trunk. Found a `trunk` beside it: leave one out.")
        if snapshot and not shared_trunk:
            raise InputError("`snapshot` is of a shared trunk. Found shared_trunk=False: set both, or none.")
        self.weight_levels = weight_levels if weighted else None
        self.weight_exponents = weight_exponents
        self.shared_trunk = shared_trunk
        self.takes_snapshots = snapshot
        self.sees_primary = sees_primary
        self.explorer: Explorer | None = None
        self.block_relative = block_relative
        self.sharpness = sharpness
        self.feature_dim = feature_dim
        self.untrained = untrained
        self._trunk = [trunk]  # in a list: it becomes a submodule only as part of the network
        self.register_buffer("epochs_played", torch.zeros((), dtype=torch.int64))

    def bind(self, hierarchy: LabelHierarchy, trunk: nn.Module, feature_dim: int) -> None:
        """Make the agent's network."""
        super().bind(hierarchy, trunk, feature_dim)
        self.actions = LabelActions(
            hierarchy, self.weight_levels, self.block_relative, self.sharpness, self.weight_exponents
        )
        self.main_feature_dim = feature_dim
        eyes: nn.Module = nn.LayerNorm(feature_dim)
        if not self.shared_trunk:
            eyes, feature_dim = own_trunk(self, self._trunk[0], trunk, norm="group")
            if not {id(p) for p in trunk.parameters()}.isdisjoint(map(id, eyes.parameters())):
                raise InputError(
                    "`trunk` of AgentLabels must have parameters of its own. Found the main network's: pass another, "
                    "or set `shared_trunk: true` for an agent that sees the main network's features."
                )
        if self.takes_snapshots:
            self.snapshot = Snapshot(trunk)
        num_primary = hierarchy.num_primary if self.sees_primary else 0
        self.network = AgentNetwork(eyes, feature_dim, self.feature_dim, self.actions.sizes, num_primary)
        # Trained by the agent's own optimizer where it `learns`; the main optimizer and DDP leave it alone.
        self.network.requires_grad_(False)
        self.network.eval()

    def train(self, mode: bool = True) -> "AgentLabels":
        """The agent acts in evaluation mode, whatever the main network does."""
        super().train(mode)
        if "network" in self._modules:
            self.network.eval()
        return self

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """See `Labeler.at_rest`; the agent does not explore."""
        explorer, self.explorer = self.explorer, None
        try:
            yield
        finally:
            self.explorer = explorer

    def before_play(self, trunk: nn.Module) -> None:
        """The agent begins to play: it looks at the main network again.

        Args:
            trunk: of the main network.
        """
        if self.takes_snapshots:
            self.snapshot.renew(trunk)

    def seen(self, batch: Batch, features: Tensor) -> Tensor:
        """What the agent's network sees of a batch.

        Args:
            batch: to be labelled.
            features: the main network's, (B, main_feature_dim).

        Returns:
            The images, or features (B, main_feature_dim): the main network's or the snapshot's.
        """
        if not self.shared_trunk:
            return batch.image
        return (self.snapshot(batch.image) if self.takes_snapshots else features).detach().float()

    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """See `Labeler.forward`."""
        seen = self.seen(batch, features)
        if self.training and self.explorer is not None:
            return self.explorer(batch, seen)
        if self.training and not self.untrained and not self.epochs_played:
            raise InputError(
                "`labeler` AgentLabels needs an agent that has played. Found one that has not: add RLAuxCallback to "
                "the trainer's callbacks, or set `untrained: true` for the control."
            )
        # As when it learned: in full precision, of which rounding would change an action here and there.
        with torch.no_grad(), torch.autocast(seen.device.type, enabled=False):
            return self.actions.target(self.network.act(seen, batch.primary), batch.primary)
