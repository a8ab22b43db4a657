"""How the primary loss after training on a target depends on that target: the signal a label network learns from."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.influence import ClassDerivative, ForwardMode, Parameters, losses_at, trainable
from auxlight.lookahead import LookAhead
from auxlight.seeding import isolated_rng


class TargetGradient(NamedTuple):
    """Gradient of the primary loss after the step with respect to a target.

    Attributes:
        probabilities: (B, K).
        weight: (B,).
        loss: that primary loss, a scalar.
    """

    probabilities: Tensor
    weight: Tensor
    loss: Tensor


def training_loss(losses: tuple[Tensor, Tensor], target: AuxiliaryTarget, aux_weight: float) -> Tensor:
    """L_pri + L_aux, a scalar, of losses (B,) and (B, K)."""
    primary, auxiliary = losses
    return primary.mean() + aux_weight * (target.weight * (target.probabilities * auxiliary).sum(1)).mean()


def gradient(loss: Tensor, parameters: Parameters, create_graph: bool = False) -> dict[str, Tensor]:
    """∇loss by name; zeros where the loss does not depend on a parameter."""
    gradients = torch.autograd.grad(loss, list(parameters.values()), create_graph=create_graph, allow_unused=True)
    return {
        name: torch.zeros_like(parameter) if g is None else g
        for (name, parameter), g in zip(parameters.items(), gradients, strict=True)
    }


class Hypergradient(ABC):
    """An estimator of the gradient of the primary loss, after training on a target, with respect to that target."""

    @abstractmethod
    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        target: AuxiliaryTarget,
        meta: Batch,
        step: LookAhead,
        aux_weight: float = 1.0,
    ) -> TargetGradient:
        """The gradient, and the loss that it belongs to.

        Args:
            network: see this module; in training mode, its batch norms normalise by the batch.
            batch: what the network trains on.
            target: the labels and weights of `batch`, detached.
            meta: what the primary loss is measured on; `batch` itself in MAXL.
            step: the look-ahead.
            aux_weight: λ.
        """


class LookAheadGradient(Hypergradient):
    """MAXL's and WA-MAXL's: through one step of the main network, θ⁺ = θ − s·∇(L_pri + L_aux).

    Args:
        derivative: of the auxiliary losses along s·∇L_pri(θ⁺); exact by default.
    """

    def __init__(self, derivative: ClassDerivative | None = None) -> None:
        self.derivative = derivative or ForwardMode()

    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        target: AuxiliaryTarget,
        meta: Batch,
        step: LookAhead,
        aux_weight: float = 1.0,
    ) -> TargetGradient:
        """See `Hypergradient.__call__`."""
        theta = trainable(network)
        seed = _draw_seed()
        with torch.enable_grad():
            leaves = _leaves(theta)
            with isolated_rng(seed):
                loss = training_loss(losses_at(network, leaves, batch), target, aux_weight)
            ahead, scales = step.step(network, theta, gradient(loss, leaves))
            leaves = _leaves(ahead)
            meta_loss = losses_at(network, leaves, meta)[0].mean()
            direction = {name: scales[name] * v for name, v in gradient(meta_loss, leaves).items()}
        with isolated_rng(seed):  # the dropout masks of the step itself
            derivative = self.derivative(network, theta, direction, batch)
        return target_gradient(derivative, target, aux_weight, meta_loss.detach())


class DoubleBackward(Hypergradient):
    """The same number by backpropagation through the step: the slow reference, with a second-order graph in memory."""

    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        target: AuxiliaryTarget,
        meta: Batch,
        step: LookAhead,
        aux_weight: float = 1.0,
    ) -> TargetGradient:
        """See `Hypergradient.__call__`."""
        seed = _draw_seed()
        with torch.enable_grad():
            theta = _leaves(trainable(network))
            wanted = AuxiliaryTarget(*(part.detach().requires_grad_() for part in target))
            with isolated_rng(seed):
                loss = training_loss(losses_at(network, theta, batch), wanted, aux_weight)
            ahead, _ = step.step(network, theta, gradient(loss, theta, create_graph=True))
            meta_loss = losses_at(network, ahead, meta)[0].mean()
            probabilities, weight = torch.autograd.grad(meta_loss, [wanted.probabilities, wanted.weight])
        return TargetGradient(probabilities, weight, meta_loss.detach())


class NeumannGradient(Hypergradient):
    """AuxiLearn's: implicit differentiation at a minimum of the training loss.

    dL_meta/dtarget = −∇L_meta · H⁻¹ · ∂∇(L_pri + L_aux)/∂target, H the Hessian of the training loss (plus damping), and
    H⁻¹v = η Σ_{j ≤ terms} (I − ηH)^j v as a truncated Neumann series (Lorraine et al., 2020). `step` is not used.

    Args:
        terms: of the series beyond the first; AuxiLearn: 3.
        eta: η, below 1 / largest eigenvalue of H for the series to converge; AuxiLearn: 1e-4.
        damping: added to H's diagonal.
        derivative: of the auxiliary losses along H⁻¹v; exact by default.

    Raises:
        InputError: a negative number of terms or damping, or η that is not positive.
    """

    def __init__(
        self, terms: int = 3, eta: float = 1e-4, damping: float = 0.0, derivative: ClassDerivative | None = None
    ) -> None:
        if terms < 0 or not eta > 0 or not damping >= 0:
            raise InputError(
                "The Neumann series needs `terms` ≥ 0, `eta` > 0 and `damping` ≥ 0. "
                f"Found terms={terms}, eta={eta}, damping={damping}."
            )
        self.terms = terms
        self.eta = eta
        self.damping = damping
        self.derivative = derivative or ForwardMode()

    def __call__(
        self,
        network: nn.Module,
        batch: Batch,
        target: AuxiliaryTarget,
        meta: Batch,
        step: LookAhead,
        aux_weight: float = 1.0,
    ) -> TargetGradient:
        """See `Hypergradient.__call__`."""
        theta = trainable(network)
        seed = _draw_seed()
        with torch.enable_grad():
            leaves = _leaves(theta)
            meta_loss = losses_at(network, leaves, meta)[0].mean()
            v = gradient(meta_loss, leaves)
            with isolated_rng(seed):
                loss = training_loss(losses_at(network, leaves, batch), target, aux_weight)
            grads = torch.autograd.grad(loss, list(leaves.values()), create_graph=True, allow_unused=True)
            used = [(name, g) for name, g in zip(leaves, grads, strict=True) if g is not None and g.requires_grad]

            def hessian_product(direction: Parameters) -> dict[str, Tensor]:
                inner = torch.stack([(g * direction[name]).sum() for name, g in used]).sum()
                products = torch.autograd.grad(inner, list(leaves.values()), retain_graph=True, allow_unused=True)
                return {
                    name: self.damping * direction[name] + (0 if product is None else product)
                    for name, product in zip(leaves, products, strict=True)
                }

            term = dict(v)
            total = dict(v)
            for _ in range(self.terms):
                product = hessian_product(term)
                term = {name: term[name] - self.eta * product[name] for name in term}
                total = {name: total[name] + term[name] for name in total}
        direction = {name: self.eta * value for name, value in total.items()}
        with isolated_rng(seed):  # the dropout masks of the training loss
            derivative = self.derivative(network, theta, direction, batch)
        return target_gradient(derivative, target, aux_weight, meta_loss.detach())


def target_gradient(
    derivative: Tensor, target: AuxiliaryTarget, aux_weight: float, meta_loss: Tensor
) -> TargetGradient:
    """−(λ/B)·D ℓ, chained to labels and weights."""
    per_label = -aux_weight / len(derivative) * derivative
    return TargetGradient(target.weight[:, None] * per_label, (target.probabilities * per_label).sum(1), meta_loss)


def _leaves(parameters: Parameters) -> dict[str, Tensor]:
    return {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}


def _draw_seed() -> int:
    return int(torch.randint(2**62, ()))
