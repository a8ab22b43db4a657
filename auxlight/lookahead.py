"""The steps of the main network that a label network looks ahead by, and their transposes."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from auxlight.errors import InputError
from auxlight.influence import Parameters, trainable


class Position(NamedTuple):
    """Where the main network stands: its parameters, and SGD's momentum buffers (None before the first step)."""

    parameters: dict[str, Tensor]
    momenta: dict[str, Tensor | None]


@dataclass(frozen=True)
class SGDRule:
    """torch's SGD for one parameter θ with momentum buffer m, written as a differentiable function."""

    lr: float
    weight_decay: float = 0.0
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def step(self, theta: Tensor, buffer: Tensor | None, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        """θ⁺, m⁺."""
        update = gradient + self.weight_decay * theta if self.weight_decay else gradient
        if not self.momentum:
            return theta - self.lr * update, None
        # SGD's first step takes the gradient undamped.
        new = update if buffer is None else self.momentum * buffer + (1 - self.dampening) * update
        return theta - self.lr * (update + self.momentum * new if self.nesterov else new), new

    def transpose(self, first: bool, theta: Tensor, buffer: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Adjoints of (gradient, θ, m) from those of (θ⁺, m⁺); θ's without its way through the gradient."""
        if not self.momentum:
            update, before = -self.lr * theta, None
        else:
            through_buffer = -self.lr * (self.momentum if self.nesterov else 1.0) * theta
            if buffer is not None:
                through_buffer = through_buffer + buffer
            update = through_buffer if first else (1 - self.dampening) * through_buffer
            if self.nesterov:
                update = update - self.lr * theta
            before = None if first else self.momentum * through_buffer
        return update, theta + self.weight_decay * update if self.weight_decay else theta, before


@dataclass(frozen=True)
class LookAhead:
    """The step θ → θ⁺ that the look-ahead takes: SGD as the main optimizer would.

    Args:
        optimizer: the main network's. SGD's rate, momentum, dampening, Nesterov and weight decay are taken over with
            its present momentum buffers; of another optimizer, the rate alone. Gradient clipping is not looked through.
        lr: another rate for every parameter; by default the optimizer's present one.

    Raises:
        InputError: a rate that is not positive, or an optimizer that maximises.
    """

    optimizer: Optimizer
    lr: float | None = None

    def __post_init__(self) -> None:
        if self.lr is not None and not self.lr > 0:
            raise InputError(f"`lookahead_lr` must be positive, or null for the optimizer's. Found {self.lr}.")
        if any(group.get("maximize") for group in self.optimizer.param_groups):
            raise InputError("The look-ahead minimises. Found an optimizer with maximize=True: set it to False.")

    def start(self, network: nn.Module) -> Position:
        """The network's present position; its tensors, not copies."""
        named = dict(network.named_parameters())
        parameters = trainable(network)
        return Position(parameters, {name: self._buffer(named[name]) for name in parameters})

    def rules(self, network: nn.Module) -> dict[str, SGDRule]:
        """The rule of each parameter that the optimizer moves, by name."""
        names = {id(parameter): name for name, parameter in network.named_parameters() if parameter.requires_grad}
        keys = ("weight_decay", "momentum", "dampening", "nesterov") if isinstance(self.optimizer, SGD) else ()
        return {
            names[id(parameter)]: SGDRule(
                lr=float(group["lr"]) if self.lr is None else self.lr, **{key: group[key] for key in keys}
            )
            for group in self.optimizer.param_groups
            for parameter in group["params"]
            if id(parameter) in names
        }

    def _buffer(self, parameter: Tensor) -> Tensor | None:
        if not isinstance(self.optimizer, SGD):
            return None
        buffer: Tensor | None = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
        return buffer


def advance(rules: dict[str, SGDRule], position: Position, gradients: Parameters) -> Position:
    """The position after a step along `gradients`; differentiable."""
    parameters, momenta = dict(position.parameters), dict(position.momenta)
    for name, rule in rules.items():
        parameters[name], momenta[name] = rule.step(parameters[name], momenta[name], gradients[name])
    return Position(parameters, momenta)


def pull_back(rules: dict[str, SGDRule], before: Position, adjoint: Position) -> tuple[dict[str, Tensor], Position]:
    """The transpose of `advance`.

    Args:
        rules: of the step.
        before: the position that it left.
        adjoint: derivative of some loss with respect to the position that it reached.

    Returns:
        The loss's derivative with respect to the step's gradient, and with respect to `before` by every way but
        through that gradient.
    """
    gradients = {name: torch.zeros_like(value) for name, value in adjoint.parameters.items() if name not in rules}
    parameters, momenta = dict(adjoint.parameters), dict(adjoint.momenta)
    for name, rule in rules.items():
        gradients[name], parameters[name], momenta[name] = rule.transpose(
            before.momenta[name] is None, adjoint.parameters[name], adjoint.momenta[name]
        )
    return gradients, Position(parameters, momenta)
