"""The step of the main network that a label network looks ahead by."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from auxlight.errors import InputError
from auxlight.influence import Parameters


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

    def step(
        self, network: nn.Module, parameters: Parameters, gradients: Parameters
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        """θ⁺, and for each parameter s = −∂θ⁺/∂gradient (a multiple of the identity)."""
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        ahead, scales = dict(parameters), dict.fromkeys(parameters, 0.0)
        for group in self.optimizer.param_groups:
            lr = float(group["lr"]) if self.lr is None else self.lr
            sgd = group if isinstance(self.optimizer, SGD) else {}
            if sgd.get("maximize"):
                raise InputError("The look-ahead minimises. Found an optimizer with maximize=True: set it to False.")
            for parameter in group["params"]:
                name = names.get(id(parameter))
                if name is None or name not in parameters:
                    continue
                theta = parameters[name]
                update = gradients[name] + sgd.get("weight_decay", 0.0) * theta
                scale = 1.0
                if momentum := sgd.get("momentum", 0.0):
                    buffer = self.optimizer.state[parameter].get("momentum_buffer")
                    raw = update
                    if buffer is not None:  # SGD's first step takes the gradient undamped
                        scale = 1 - sgd["dampening"]
                        update = momentum * buffer + scale * update
                    if sgd["nesterov"]:
                        update, scale = raw + momentum * update, 1 + momentum * scale
                ahead[name] = theta - lr * update
                scales[name] = lr * scale
        return ahead, scales
