"""How the primary loss after training on targets depends on those targets: the signal a label network learns from."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.convolutions import ConvolutionOutputs
from auxlight.distributed import Average, alone
from auxlight.implicit import check_series, inner_product, inverse_hessian_product, second_order
from auxlight.influence import (
    ClassDerivative,
    ForwardMode,
    Parameters,
    gradient,
    losses_at,
    recomputation_refused,
    trainable,
)
from auxlight.lookahead import LookAhead, Position, SGDRule, advance, pull_back
from auxlight.seeding import isolated_rng


class TargetGradient(NamedTuple):
    """Gradient of the primary loss with respect to one target: `probabilities` (B, K) and `weight` (B,)."""

    probabilities: Tensor
    weight: Tensor


class MetaGradient(NamedTuple):
    """The primary loss that the labels are judged by, a scalar, and its gradient for the target of each batch."""

    loss: Tensor
    targets: tuple[TargetGradient, ...]


@dataclass(frozen=True)
class MetaProblem:
    """What a hypergradient is of.

    Args:
        network: see `auxlight.influence`; in training mode, its batch norms normalise by the batch.
        batches: what the network trains on, one step each.
        targets: their labels and weights, detached.
        meta: the batches on which the primary loss is measured, in the mean; in MAXL the very batch of the step.
        step: the look-ahead.
        aux_weight: λ.
        average: mean of named tensors over the devices, each of which holds a share of every batch.
        seed: of the dropout masks.
        keep: of the look-ahead's convolution outputs, the share that is kept for the forward-mode pass; see
            `ConvolutionOutputs`.
    """

    network: nn.Module
    batches: Sequence[Batch]
    targets: Sequence[AuxiliaryTarget]
    meta: Sequence[Batch]
    step: LookAhead
    aux_weight: float = 1.0
    average: Average = alone
    seed: int = field(default_factory=lambda: int(torch.randint(2**62, ())))
    keep: float = 0.45

    def training_loss(self, number: int, parameters: Parameters, target: AuxiliaryTarget | None = None) -> Tensor:
        """L_pri + L_aux of a batch, a scalar; always with the same dropout masks."""
        target = self.targets[number] if target is None else target
        with isolated_rng(self.seed + number):
            primary, auxiliary = losses_at(self.network, parameters, self.batches[number])
        return primary.mean() + self.aux_weight * (target.weight * (target.probabilities * auxiliary).sum(1)).mean()

    def meta_loss(self, number: int, parameters: Parameters) -> Tensor:
        """L_pri of a meta batch."""
        with isolated_rng(self.seed + len(self.batches) + number):
            return losses_at(self.network, parameters, self.meta[number])[0].mean()

    def meta_gradient(self, parameters: Parameters) -> tuple[Tensor, dict[str, Tensor]]:
        """L_pri on the meta batches, and its gradient."""
        leaves, losses = as_leaves(parameters), []
        for number in range(len(self.meta)):
            loss = self.meta_loss(number, leaves) / len(self.meta)
            with recomputation_refused():
                loss.backward(inputs=list(leaves.values()))  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        slopes = {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for name, leaf in leaves.items()}
        return torch.stack(losses).sum(), self.average(slopes)

    def target_gradient(
        self, number: int, parameters: Parameters, direction: Parameters, derivative: ClassDerivative
    ) -> TargetGradient:
        """∂⟨∇(L_pri + L_aux), direction⟩/∂target = (λ/B)·D ℓ, chained to labels and weights."""
        with isolated_rng(self.seed + number):
            slopes = derivative(self.network, parameters, direction, self.batches[number])
        target = self.targets[number]
        per_label = self.aux_weight / len(slopes) * slopes
        return TargetGradient(target.weight[:, None] * per_label, (target.probabilities * per_label).sum(1))


class Hypergradient(ABC):
    """An estimator of the gradient of the primary loss, after training on targets, with respect to those targets.

    Attributes:
        one_device: whether it leaves `MetaProblem.average` unused.
    """

    one_device = False

    @abstractmethod
    def __call__(self, problem: MetaProblem) -> MetaGradient:
        """The gradient, and the loss that it belongs to."""


class LookAheadGradient(Hypergradient):
    """MAXL's and WA-MAXL's: through a step of the main network for each batch, θ⁺ = θ − s·∇(L_pri + L_aux).

    Through the last step back the one forward-mode pass of `auxlight.influence` does; each further step back takes
    a Hessian-vector product. Memory holds one step's graph at a time, and the parameters before each step.

    Args:
        derivative: of the auxiliary losses along a direction; exact by default.
    """

    def __init__(self, derivative: ClassDerivative | None = None) -> None:
        self.derivative = derivative or ForwardMode()

    def __call__(self, problem: MetaProblem) -> MetaGradient:
        """See `Hypergradient.__call__`."""
        rules = problem.step.rules(problem.network)
        positions = [problem.step.start(problem.network)]
        kept = ConvolutionOutputs(problem.keep)
        with torch.enable_grad():
            for number in range(len(problem.batches)):
                leaves = as_leaves(positions[-1].parameters)
                with kept.recorded() if number == 0 else nullcontext():
                    loss = problem.training_loss(number, leaves)
                slope = problem.average(slope_of(loss, leaves))
                positions.append(advance(rules, positions[-1], slope))
            del slope, leaves, loss
        return self.of_steps(problem, rules, positions, kept)

    @torch.enable_grad()
    def of_steps(
        self,
        problem: MetaProblem,
        rules: dict[str, SGDRule],
        positions: list[Position],
        kept: ConvolutionOutputs,
    ) -> MetaGradient:
        """The gradient through steps that were taken already.

        Args:
            problem: whose steps they are.
            rules: by which they were taken.
            positions: before each step, and after the last; emptied, so that each is let go once it has been used.
            kept: of the first step's forward pass.
        """
        loss, slope = problem.meta_gradient(positions.pop().parameters)
        adjoint = Position(slope, dict.fromkeys(slope))
        del slope
        targets: list[TargetGradient] = []
        for number in reversed(range(len(positions))):
            before = positions.pop()
            direction, adjoint = pull_back(rules, before, adjoint)
            if number > 0:
                target, product = mixed_products(problem, number, before.parameters, direction)
                for name, value in problem.average(product).items():
                    adjoint.parameters[name] = adjoint.parameters[name] + value
            else:
                del adjoint
                with kept.replayed():
                    target = problem.target_gradient(number, before.parameters, direction, self.derivative)
            targets.insert(0, target)
        return MetaGradient(loss, tuple(targets))


class DoubleBackward(Hypergradient):
    """The same numbers by backpropagation through the steps: the slow reference, with their whole graph in memory.

    It knows one device only.
    """

    one_device = True

    @torch.enable_grad()
    def __call__(self, problem: MetaProblem) -> MetaGradient:
        """See `Hypergradient.__call__`."""
        rules, position = problem.step.rules(problem.network), problem.step.start(problem.network)
        position = position._replace(parameters=as_leaves(position.parameters))
        wanted = [AuxiliaryTarget(*(part.detach().requires_grad_() for part in target)) for target in problem.targets]
        for number, target in enumerate(wanted):
            loss = problem.training_loss(number, position.parameters, target)
            position = advance(rules, position, slope_of(loss, position.parameters, create_graph=True))
        losses = [problem.meta_loss(number, position.parameters) for number in range(len(problem.meta))]
        meta_loss = torch.stack(losses).mean()
        with second_order():
            slopes = iter(torch.autograd.grad(meta_loss, [part for target in wanted for part in target]))
        return MetaGradient(meta_loss.detach(), tuple(TargetGradient(next(slopes), next(slopes)) for _ in wanted))


class NeumannGradient(Hypergradient):
    """AuxiLearn's: implicit differentiation at a minimum of the training loss, taken as the mean over the batches.

    dL_meta/dtarget = −∇L_meta · H⁻¹ · ∂∇(L_pri + L_aux)/∂target, H the Hessian of the training loss (plus damping), and
    H⁻¹v = η Σ_{j ≤ terms} (I − ηH)^j v as a truncated Neumann series (Lorraine et al., 2020). `step` is not used.

    Args:
        terms: of the series beyond the first; AuxiLearn: 3.
        eta: η, below 1 / largest eigenvalue of H for the series to converge; AuxiLearn: the main learning rate, 1e-3.
        damping: added to H's diagonal.
        derivative: of the auxiliary losses along H⁻¹v; exact by default.

    Raises:
        InputError: a negative number of terms or damping, or η that is not positive.
    """

    def __init__(
        self, terms: int = 3, eta: float = 1e-3, damping: float = 0.0, derivative: ClassDerivative | None = None
    ) -> None:
        check_series(terms, eta, damping)
        self.terms = terms
        self.eta = eta
        self.damping = damping
        self.derivative = derivative or ForwardMode()

    @torch.enable_grad()
    def __call__(self, problem: MetaProblem) -> MetaGradient:
        """See `Hypergradient.__call__`."""
        theta = trainable(problem.network)
        numbers = range(len(problem.batches))
        meta_loss, vector = problem.meta_gradient(theta)
        leaves = as_leaves(theta)
        losses = [problem.training_loss(number, leaves) for number in numbers]
        slope = slope_of(torch.stack(losses).mean(), leaves, create_graph=True)
        solved = inverse_hessian_product(slope, leaves, vector, self.terms, self.eta, self.damping, problem.average)
        del slope, losses
        direction = {name: -v / len(numbers) for name, v in solved.items()}
        targets = [problem.target_gradient(number, theta, direction, self.derivative) for number in numbers]
        return MetaGradient(meta_loss, tuple(targets))


def mixed_products(
    problem: MetaProblem, number: int, parameters: Parameters, direction: Parameters
) -> tuple[TargetGradient, dict[str, Tensor]]:
    """Derivatives of ⟨∇(L_pri + L_aux), direction⟩ with respect to a batch's target and to the parameters."""
    leaves = as_leaves(parameters)
    wanted = AuxiliaryTarget(*(part.detach().requires_grad_() for part in problem.targets[number]))
    slope = slope_of(problem.training_loss(number, leaves, wanted), leaves, create_graph=True)
    inner = inner_product(slope, direction)
    everything = [*leaves.values(), *wanted]
    with second_order():
        *products, probabilities, weight = torch.autograd.grad(inner, everything, materialize_grads=True)
    return TargetGradient(probabilities, weight), dict(zip(leaves, products, strict=True))


def slope_of(loss: Tensor, parameters: Parameters, create_graph: bool = False) -> dict[str, Tensor]:
    """∇loss of `losses_at` other parameters than the network's own."""
    with recomputation_refused():
        return gradient(loss, parameters, create_graph)


def as_leaves(parameters: Parameters) -> dict[str, Tensor]:
    """The same values as leaves of a new graph."""
    return {name: parameter.detach().requires_grad_() for name, parameter in parameters.items()}
