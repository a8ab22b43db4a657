"""How the auxiliary losses of a batch change along a direction in parameter space: one primitive, several methods.

The auxiliary loss of a batch, L_aux = (λ/B) Σ_i w_i Σ_k t_ik ℓ_k(θ; x_i), is linear in w_i t_ik, with ℓ_k the loss of
sample i were its label k. After a step θ⁺ = θ − s·g along g = ∇(L_pri + L_aux), and with u = ∂L_pri(θ⁺)/∂g
= −s·∇L_pri(θ⁺), therefore

    ∂L_pri(θ⁺)/∂(w_i t_ik) = (λ/B) · D_u ℓ_k(θ; x_i),

D the directional derivative: one forward-mode pass yields all B × K numbers, without a second-order graph. They are
MAXL's and WA-MAXL's hypergradient; along −H⁻¹∇L_pri, with H the Hessian of the training loss, they are AuxiLearn's
(`auxlight.hypergradient`).

A *network* here is any module with forward(batch) → primary losses (B,), auxiliary losses (B, K) of every class. Its
parameters and buffers (batch norm's statistics) are read, never written.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.modules.module import register_module_forward_pre_hook

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.seeding import kept_rng
from auxlight.tangents import Tangents

Parameters = Mapping[str, Tensor]


def trainable(network: nn.Module) -> dict[str, Tensor]:
    """The parameters that train, detached, by name; tied ones once."""
    return {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}


def losses_at(network: nn.Module, parameters: Parameters, batch: Batch) -> tuple[Tensor, Tensor]:
    """Primary (B,) and auxiliary (B, K) losses at other parameters; the network's buffers stay as they are."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    copies = {id(buffer): buffer.clone() for buffer in network.buffers()}
    values: dict[str, Tensor] = {}
    # Ties are resolved here: functional_call's own way would leave its values behind in a module that is used twice.
    for prefix, module in network.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False, remove_duplicate=False):
            values[name] = parameters.get(names[id(parameter)], parameter)
        for name, buffer in module.named_buffers(prefix, recurse=False, remove_duplicate=False):
            values[name] = copies[id(buffer)]
    primary, auxiliary = functional_call(network, values, (batch,), tie_weights=False)
    return primary, auxiliary


def gradient(
    loss: Tensor, parameters: Parameters, create_graph: bool = False, retain_graph: bool | None = None
) -> dict[str, Tensor]:
    """∇loss by name; zeros where the loss does not depend on a parameter."""
    slopes = torch.autograd.grad(
        loss, list(parameters.values()), None, retain_graph, create_graph, materialize_grads=True
    )
    return dict(zip(parameters, slopes, strict=True))


@contextmanager
def recomputation_refused() -> Iterator[None]:
    """Inside this block, a backward pass, no module may run: it would at the network's own parameters.

    Raises:
        InputError: one does; its activations were not kept (`torch.utils.checkpoint`).
    """

    def refuse(module: nn.Module, inputs: Any) -> None:
        raise InputError(
            "A network whose gradient is taken at other parameters than its own must keep its activations. Found "
            f"{type(module).__name__} run again by the backward pass: switch gradient checkpointing off."
        )

    hook = register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


class ClassDerivative(ABC):
    """An estimator of D_v ℓ_k(θ; x_i), the derivatives of all auxiliary losses along a direction v."""

    @abstractmethod
    def __call__(self, network: nn.Module, parameters: Parameters, direction: Parameters, batch: Batch) -> Tensor:
        """(B, K) derivatives at `parameters` along `direction`."""


class ForwardMode(ClassDerivative):
    """Exact, by one forward-mode pass."""

    def __call__(self, network: nn.Module, parameters: Parameters, direction: Parameters, batch: Batch) -> Tensor:
        """See `ClassDerivative.__call__`."""
        try:
            # Dual numbers themselves; torch.func.jvp wraps them once more, at some 1.4 times the time on a CPU.
            with torch.enable_grad(), forward_ad.dual_level(), Tangents():
                dual = {name: forward_ad.make_dual(theta, direction[name]) for name, theta in parameters.items()}  # type: ignore[no-untyped-call]
                tangent: Tensor | None = forward_ad.unpack_dual(losses_at(network, dual, batch)[1]).tangent  # type: ignore[no-untyped-call]
        except (NotImplementedError, RuntimeError) as error:
            if not re.search("forward AD|forward mode|jvp", str(error), re.IGNORECASE):
                raise
            raise InputError(
                "The exact hypergradient needs a forward-mode derivative of every operation of the network. "
                f"Found one without: {' '.join(str(error).split())[:200]} Set the `derivative` of LookAheadGradient or "
                "NeumannGradient to auxlight.FiniteDifference; for SLGrad and InfluenceReward use other operations."
            ) from error
        if tangent is None:
            raise InputError("The auxiliary losses must depend on trainable parameters. Found that they do not.")
        return tangent


class FiniteDifference(ClassDerivative):
    """(ℓ(θ + εv) − ℓ(θ − εv)) / 2ε with ε = `epsilon` / ‖v‖: MAXL's second release (there ε = 0.01 / ‖v‖).

    Two plain forward passes, for networks with an operation that has no forward-mode derivative. The error is of
    order ε²; on VGG16 it was some 20 %. It looks through `detach` and `no_grad`, which backpropagation does not.
    """

    def __init__(self, epsilon: float = 0.01) -> None:
        if not epsilon > 0:
            raise InputError(f"`epsilon` must be positive. Found epsilon={epsilon}.")
        self.epsilon = epsilon

    @torch.no_grad()
    def __call__(self, network: nn.Module, parameters: Parameters, direction: Parameters, batch: Batch) -> Tensor:
        """See `ClassDerivative.__call__`."""
        norm = torch.stack([v.norm() for v in direction.values()]).norm()
        epsilon = self.epsilon / norm.clamp_min(torch.finfo(norm.dtype).tiny)

        def auxiliary(sign: int) -> Tensor:
            moved = {name: theta + sign * epsilon * direction[name] for name, theta in parameters.items()}
            with kept_rng():  # both with the same dropout masks
                return losses_at(network, moved, batch)[1]

        difference: Tensor = (auxiliary(1) - auxiliary(-1)) / (2 * epsilon)
        return difference
