"""Implicit differentiation: how a loss at the minimum of a training loss depends on what shapes the training loss.

With θ*(φ) = argmin L_T(θ, φ):  dL_V(θ*)/dφ = −∇_θL_V · H⁻¹ · ∂_φ∇_θL_T,  H = ∇²_θL_T. The inverse is a truncated
Neumann series, H⁻¹v = η Σ_{j ≤ terms} (I − ηH)^j v (Lorraine et al., 2020), which converges where η is below
1 / (largest eigenvalue of H) and H has none below 0.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from auxlight.distributed import Average, alone
from auxlight.errors import InputError
from auxlight.influence import Parameters, gradient


def check_series(terms: int, eta: float, damping: float = 0.0) -> None:
    """Refuse a series that makes no sense.

    Raises:
        InputError: a negative number of terms or damping, or η that is not positive.
    """
    if terms < 0 or not eta > 0 or not damping >= 0:
        raise InputError(
            "The Neumann series needs `terms` ≥ 0, `eta` > 0 and `damping` ≥ 0. "
            f"Found terms={terms}, eta={eta}, damping={damping}."
        )


def inverse_hessian_product(
    slope: Parameters,
    at: Parameters,
    vector: Parameters,
    terms: int,
    eta: float,
    damping: float = 0.0,
    average: Average = alone,
) -> dict[str, Tensor]:
    """(H + damping·I)⁻¹ `vector` by the series.

    Args:
        slope: ∇L_T with its graph.
        at: the parameters θ that it was taken for.
        vector: by name, as `at`.
        terms: of the series beyond the first.
        eta: η.
        damping: added to H's diagonal.
        average: mean over devices.
    """
    term, total = dict(vector), dict(vector)
    for _ in range(terms):
        with second_order():
            product = gradient(inner_product(slope, term), at, retain_graph=True)
        product = average(product)
        term = {name: (1 - eta * damping) * v - eta * product[name] for name, v in term.items()}
        total = {name: total[name] + v for name, v in term.items()}
    return {name: eta * v for name, v in total.items()}


def implicit_gradient(
    judged: Tensor,
    training: Tensor,
    at: Sequence[Tensor],
    outer: Sequence[Tensor],
    terms: int,
    eta: float,
    average: Average = alone,
) -> list[Tensor]:
    """dL_V/dφ, where L_V itself does not depend on φ.

    Args:
        judged: L_V, a scalar with its graph.
        training: L_T, a scalar with its graph.
        at: θ.
        outer: φ, tensors that L_T was made of.
        terms: of the Neumann series beyond the first.
        eta: η.
        average: mean over devices.
    """
    theta = {str(number): parameter for number, parameter in enumerate(at)}
    vector = average(gradient(judged, theta))
    slope = gradient(training, theta, create_graph=True)
    vector = inverse_hessian_product(slope, theta, vector, terms, eta, average=average)
    with second_order():
        mixed = torch.autograd.grad(inner_product(slope, vector), outer, materialize_grads=True)
    named = average({str(number): -part for number, part in enumerate(mixed)})
    return list(named.values())


@contextmanager
def second_order() -> Iterator[None]:
    """Derivatives of a gradient, with a sentence for operations that have none."""
    try:
        yield
    except RuntimeError as error:
        if not re.search("derivative for .* is not implemented|once_differentiable", str(error)):
            raise
        raise InputError(
            "Several look-ahead steps, a Neumann series or DoubleBackward need second derivatives of every operation "
            f"of the network. Found one without: {' '.join(str(error).split())[:200]} Look one step ahead, or replace "
            "the operation."
        ) from error


def inner_product(one: Parameters, other: Parameters) -> Tensor:
    """⟨one, other⟩ over all parameters on which `one` still depends."""
    return torch.stack([(value * other[name]).sum() for name, value in one.items() if value.requires_grad]).sum()
