"""What rules share that learn by steps of their own, apart from the main optimizer's."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from auxlight.combiners.base import Combiner
from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import check_finite
from auxlight.errors import InputError

MakeOptimizer = Callable[[list[nn.Parameter]], Optimizer]


class LearnedCombiner(Combiner):
    """A rule with parameters that its own optimizer moves; both are part of a checkpoint.

    The parameters do not require a gradient: the main optimizer and DDP leave them alone. A rule that differentiates
    through gradients does so with autocast off: mixed precision would round a part of what it learns away.

    Args:
        optimizer: parameters → optimizer.
        clip: largest norm of their gradient; None leaves it.

    Raises:
        InputError: a norm that is not positive.
    """

    def __init__(self, optimizer: MakeOptimizer, clip: float | None = None) -> None:
        super().__init__()
        if clip is not None and not clip > 0:
            raise InputError(f"`clip` must be positive, or null. Found clip={clip}.")
        self.make_optimizer = optimizer
        self.clip = clip
        self._optimizer: Optimizer | None = None

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`; a subclass makes its parameters first."""
        super().bind(names)
        self.requires_grad_(False)
        try:
            self._optimizer = self.make_optimizer(list(self.parameters()))
        except (ValueError, TypeError) as error:
            raise InputError(f"`optimizer` of {type(self).__name__} does not take its arguments: {error}.") from error

    @property
    def own_optimizer(self) -> Optimizer:
        """Of the rule's parameters, from `bind` on."""
        if self._optimizer is None:
            raise InputError(f"{type(self).__name__} must be bound to its tasks first. Found it unbound: call `bind`.")
        return self._optimizer

    def move(self, slopes: Sequence[Tensor], context: StepContext) -> None:
        """A step along these gradients of the parameters, averaged over the devices.

        Raises:
            DivergedError: gradients that are not finite.
        """
        named = context.average({str(number): slope for number, slope in enumerate(slopes)})
        check_finite(*named.values())
        for parameter, slope in zip(self.parameters(), named.values(), strict=True):
            parameter.grad = slope.detach().to(parameter)
        if self.clip is not None:
            clip_grad_norm_(self.parameters(), self.clip)
        # A checkpoint's state comes before the module reaches its device, and Lightning moves only its own optimizers'.
        for owner, state in self.own_optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor) and value.shape == owner.shape:
                    state[key] = value.to(owner)
        self.own_optimizer.step()
        self.own_optimizer.zero_grad()

    def get_extra_state(self) -> dict[str, Any]:
        """The optimizer's state."""
        return {} if self._optimizer is None else self._optimizer.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take up an optimizer's state."""
        if state:
            self.own_optimizer.load_state_dict(copy.deepcopy(state))  # it would share the tensors
