"""Human labels whose weights are learned."""

from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers.network import LabelNetwork
from auxlight.networks.heads import Head


class HumanWeights(LabelNetwork):
    """WA-MAXL's weight head on top of the data set's own labels: what is learned is which of them matter, no label.

    `MAXLModule` and `AuxiLearnModule` train it. `labels/weight_min` and `labels/weight_max` say whether it tells images
    apart at all.

    Args:
        normalize_weights: scale the weights of a batch (of each device) to a mean of 1, so that the auxiliary loss as a
            whole keeps its λ: what is gained over human labels is then no larger step. An image's weight then depends
            on its batch. Left free, one step of look-ahead drives all weights up.
        trunk: see `LabelNetwork`.
        shared_trunk: see `LabelNetwork`.
        head_dim: see `LabelNetwork`.
        untrained: see `LabelNetwork`.

    Raises:
        InputError: in the first step, where the data set has no human sub-labels.
    """

    def __init__(
        self,
        normalize_weights: bool = True,
        trunk: nn.Module | None = None,
        shared_trunk: bool = False,
        head_dim: int | None = None,
        untrained: bool = False,
    ) -> None:
        super().__init__(
            True, normalize_weights, trunk=trunk, shared_trunk=shared_trunk, head_dim=head_dim, untrained=untrained
        )

    def make_heads(self, hierarchy: LabelHierarchy, feature_dim: int) -> None:
        """No head for labels."""
        self.weight_head = Head(feature_dim, 1, self.head_dim)

    def generate(self, batch: Batch, features: Tensor | None = None) -> AuxiliaryTarget:
        """See `LabelNetwork.generate`."""
        return AuxiliaryTarget(self.human_target(batch).probabilities, self.weigh(self.see(batch, features)))
