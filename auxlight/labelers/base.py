"""Where the auxiliary target of a batch comes from."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy

# All training images whose primary class is known, in batches and as they are, each time it is called.
Images = Callable[[], Iterable[Batch]]


class Labeler(nn.Module, ABC):
    """Gives every image an auxiliary label and a weight.

    An own labeler is one class::

        class FirstOfBlock(Labeler):
            def forward(self, batch, features):
                label = self.hierarchy.to_global(batch.primary, torch.zeros_like(batch.primary))
                return self.hard_target(label)

    The auxiliary loss does not train a labeler; one that learns is a `LabelNetwork`, or has a loss of its own.

    Attributes:
        hierarchy: the module's hierarchy, from `bind` on.
        mask: (C, K) bool buffer, row y marks the auxiliary classes of primary class y.
    """

    hierarchy: LabelHierarchy
    mask: Tensor
    _bound = False

    def bind(self, hierarchy: LabelHierarchy, trunk: nn.Module, feature_dim: int) -> None:
        """Called once by the module that uses this labeler; networks of one's own are made here.

        Args:
            hierarchy: which auxiliary classes each primary class owns.
            trunk: the main network's trunk, for a labeler whose network should resemble it. Not to be trained.
            feature_dim: size of its features, for a labeler that works on them.

        Raises:
            InputError: it is bound already.
        """
        if self._bound:
            raise InputError(
                f"A labeler belongs to one module. Found a {type(self).__name__} that is bound to another: make one "
                "for each."
            )
        self._bound = True
        self.hierarchy = hierarchy
        self.register_buffer("mask", hierarchy.mask, persistent=False)

    def before_fit(self) -> None:
        """Called before the first step of a fit that is not resumed, for a labeler that remembers; most do nothing."""

    def before_step(self, epoch: int, epochs: int | None, trunk: nn.Module, images: Images) -> None:
        """Called before each step of a fit, for a labeler that looks at more than the batch; most do nothing.

        Args:
            epoch: of the step, from 0.
            epochs: of the run; None for one without end.
            trunk: the main network's.
            images: all training images.
        """

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Inside this block the labeler labels other images than those of the step, and must not learn from them."""
        yield

    @abstractmethod
    def forward(self, batch: Batch, features: Tensor) -> AuxiliaryTarget:
        """The target of each image.

        Args:
            batch: the images, (B, C, H, W), with their labels.
            features: (B, D) of the main network's trunk.
        """

    def human_target(self, batch: Batch) -> AuxiliaryTarget:
        """The data set's own sub-labels, of weight 1.

        Raises:
            InputError: where it has none.
        """
        if batch.auxiliary is None:
            raise InputError(
                f"`labeler` {type(self).__name__} needs a data set with human sub-labels. Found none: "
                "choose other data (CIFAR-100, digits, folders train/<primary>/<sub>/, .npz with train_auxiliary) or "
                "another labeler."
            )
        return self.hard_target(batch.auxiliary)

    def hard_target(self, label: Tensor) -> AuxiliaryTarget:
        """One-hot target of weight 1 from auxiliary classes (B,)."""
        probabilities = nn.functional.one_hot(label, self.hierarchy.num_auxiliary).float()
        return AuxiliaryTarget(probabilities, probabilities.new_ones(len(label)))
