"""The gradient rules of TorchJD."""

from typing import Any

import torch
from torch import Tensor, nn
from torchjd import Stateful
from torchjd.aggregation import Aggregator

from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import GradientCombiner, TaskGradients, Update
from auxlight.errors import InputError
from auxlight.seeding import derive_seed, global_seed, isolated_rng


class Aggregation(GradientCombiner):
    """Any aggregator of TorchJD: PCGrad, CAGrad, MGDA, IMTL-G, GradDrop, GradVac, Aligned-MTL, UPGrad, FairGrad, ….

    The rows of the Jacobian that it aggregates are the tasks' gradients for the shared parameters. The heads get their
    own task's gradient as it is, as in `torchjd.autojac.mtl_backward`. What a rule draws is a function of the run's
    seed and the step, and what it remembers is part of a checkpoint, and goes back after an agent's game. Not so
    NashMTL's warm start: `AuxiNash` with ``learn=False`` is that rule without one.

    Args:
        aggregator: (M, P) → (P,), such as ``torchjd.aggregation.PCGrad``.

    Raises:
        InputError: in a step, what the aggregator says of a number of tasks that it does not take.
    """

    steps: Tensor

    def __init__(self, aggregator: Aggregator) -> None:
        super().__init__()
        if not isinstance(aggregator, Aggregator):
            raise InputError(
                "`aggregator` must be one of TorchJD's, such as torchjd.aggregation.PCGrad. "
                f"Found {type(aggregator).__name__}."
            )
        # Not a submodule: what it remembers comes and goes with its first step, which no state_dict could match.
        self._held = (aggregator,)
        self._elsewhere: list[tuple[str, str]] = []  # what a checkpoint has brought to the CPU from another device
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def aggregator(self) -> Aggregator:
        """TorchJD's."""
        return self._held[0]

    def combine(self, gradients: TaskGradients, means: Tensor, context: StepContext) -> Update:
        """See `GradientCombiner.combine`."""
        for name, key in self._elsewhere:
            part = self.aggregator.get_submodule(name)
            setattr(part, key, getattr(part, key).to(gradients.matrix.device))
        self._elsewhere = []
        try:
            with isolated_rng(derive_seed(global_seed(), "aggregation", int(self.steps))):
                shared = self.aggregator(gradients.matrix)
        except ValueError as error:
            raise InputError(
                f"`aggregator` {type(self.aggregator).__name__} cannot aggregate {len(means)} tasks: {error}"
            ) from error
        self.steps += 1
        return Update(shared, torch.ones_like(means))

    def get_extra_state(self) -> dict[str, dict[str, Any]]:
        """What the aggregator remembers, and which of that does not lie on the CPU."""
        parts = self.aggregator.named_modules()
        memories = {name: _memory(part) for name, part in parts if isinstance(part, Stateful)}
        return {
            name: {
                "values": values,
                "elsewhere": [
                    key
                    for key, value in values.items()
                    if not getattr(value, "is_cpu", True) or (name, key) in self._elsewhere
                ],
            }
            for name, values in memories.items()
        }

    def set_extra_state(self, state: dict[str, dict[str, Any]]) -> None:
        """Take up what an aggregator remembered."""
        self._elsewhere = []
        for name, memory in state.items():
            part, values = self.aggregator.get_submodule(name), memory["values"]
            for key in _memory(part).keys() - values.keys():
                delattr(part, key)
            for key, value in values.items():
                setattr(part, key, value.clone() if isinstance(value, Tensor) else value)
            self._elsewhere += [(name, key) for key in memory["elsewhere"]]


def _memory(part: Any) -> dict[str, Any]:
    """TorchJD keeps it in plain attributes and passing buffers, which no state_dict could match."""
    everything = vars(part) | dict(part.named_buffers(recurse=False))
    return {key: value for key, value in everything.items() if _remembered(key, value)}


def _remembered(key: str, value: Any) -> bool:
    """Whether this attribute is of the rule, not of torch's modules, and one that a checkpoint can hold."""
    return key.startswith("_") and key not in vars(nn.Module()) and _plain(value)


def _plain(value: Any) -> bool:
    if isinstance(value, tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, Tensor | int | float | str | torch.dtype | torch.device)
