"""What a combiner may ask for beside the losses of a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor, nn

from auxlight.distributed import Average, alone
from auxlight.errors import InputError

if TYPE_CHECKING:
    from auxlight.combiners.base import TaskLosses


def _nothing() -> "TaskLosses":
    raise InputError("This combiner asks for a further training batch. Found none: give the context `another`.")


def _no_judge() -> Tensor:
    raise InputError("This combiner asks for the primary loss of other images. Found none: give the context `judged`.")


def _no_derivatives(direction: Sequence[Tensor]) -> list[Tensor]:
    raise InputError("This combiner asks for each loss's derivative. Found none: give the context `derivatives`.")


@dataclass(frozen=True)
class StepContext:
    """The network whose tasks are combined; a script without a LightningModule makes its own.

    Args:
        shared: the parameters that the tasks share, the trunk's; they are trained.
        own: all other trained parameters that the losses depend on, the tasks' heads: a rule on gradients trains no
            others.
        average: mean over the devices, each of which holds a share of the batch.
        epoch: of the training, from 0.
        learns: whether a rule may learn from further batches now; not while an agent plays.
        another: the losses of a further training batch, with their graph.
        judged: the primary loss of a batch that the tasks are judged by, a scalar with its graph.
        derivatives: of each task's `TaskLosses.samples` along a direction in the space of ``(*shared, *own)``.
    """

    shared: Sequence[nn.Parameter]
    own: Sequence[nn.Parameter]
    average: Average = alone
    epoch: int = 0
    learns: bool = True
    another: Callable[[], "TaskLosses"] = field(default=_nothing)
    judged: Callable[[], Tensor] = field(default=_no_judge)
    derivatives: Callable[[Sequence[Tensor]], list[Tensor]] = field(default=_no_derivatives)

    def __post_init__(self) -> None:
        for name in ("shared", "own"):  # `parameters()` gives a generator, which would be used up
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def check_shared(self) -> None:
        """Refuse a network whose tasks share nothing that trains.

        Raises:
            InputError: no shared parameters.
        """
        if not self.shared:
            raise InputError(
                "This combiner needs shared parameters that train. Found none: unfreeze the trunk, or choose another."
            )

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last shared layer, in the order in which the trunk has its layers.

        Raises:
            InputError: no shared layer that trains.
        """
        layers = [p for p in self.shared if p.ndim > 1]
        if not layers:
            raise InputError(
                "This combiner needs a shared layer that trains. Found none: unfreeze the trunk, or choose another."
            )
        return layers[-1]

    def mean(self, tensor: Tensor) -> Tensor:
        """The tensor's mean over the devices."""
        return self.average({"mean": tensor})["mean"]
