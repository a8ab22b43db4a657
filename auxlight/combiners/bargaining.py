"""The bargaining problem of Nash-MTL and AuxiNash: GᵀG α = p / α, α > 0.

Its solution is the minimum of the strictly convex f(α) = ½ αᵀGᵀGα − Σ_m p_m log α_m. With x_m = α_m ‖g_m‖ it depends
on the gradients' directions alone: C x = p / x, C the matrix of their cosines. Then αᵀGᵀGα = Σp, and for orthogonal
gradients α_m = √p_m / ‖g_m‖. (Navon et al., 2022; Shamsian et al., 2023. Their code solves a sequence of convex
programmes; Newton's method takes a handful of steps.)
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from auxlight.errors import DivergedError, InputError

Array = npt.NDArray[np.float64]

# A gradient this much shorter than the longest is none.
NOTHING = 1e-12
# Above this multiple of √Σp some x says that the gradients cancel each other.
CANCELS = 30.0
# Added to C's diagonal then.
RIDGE = 1e-3


@dataclass(frozen=True)
class Bargain:
    """A solution.

    Attributes:
        weights: α (M,), float64 on the CPU, each ≥ 0.
        gramian: of the problem that was solved: GᵀG, with the ridge where one was needed.
        preference: p.
        residual: of C x = p / x, relative to p / x.
    """

    weights: Tensor
    gramian: Tensor
    preference: Tensor
    residual: float

    def jacobian(self) -> Tensor:
        """∂α/∂p (M, M) = (GᵀG + diag(p / α²))⁻¹ diag(1 / α); 0 for tasks without a weight. J p = α / 2."""
        active = self.weights > 0
        weights, preference = self.weights[active], self.preference[active]
        # In x = α ‖g‖, in which the matrix is well scaled whatever the gradients' lengths.
        lengths = self.gramian.diagonal()[active].sqrt()
        x = weights * lengths
        cosines = self.gramian[active][:, active] / lengths / lengths[:, None]
        inner = torch.linalg.solve(cosines + torch.diag(preference / x**2), torch.diag(1 / x)) / lengths[:, None]
        whole = self.gramian.new_zeros(len(active), len(active))
        rows = active.nonzero()[:, 0]
        whole[rows[:, None], rows[None, :]] = inner
        return whole


def bargain(gramian: Tensor, preference: Tensor) -> Bargain:
    """Solve GᵀG α = p / α for α > 0 by damped Newton steps.

    Two cases have no solution, and get a stated answer. A task whose gradient is 0 (10⁻¹² of the longest) gets the
    weight 0, and the others bargain without it. Gradients some mixture of which is (nearly) 0, so that no direction
    serves all tasks, would get boundless weights whose combined gradient vanishes: C is then taken with 10⁻³ added to
    its diagonal, as if each task had a little dimension of its own, and no x exceeds 32 √Σp.

    Args:
        gramian: GᵀG (M, M).
        preference: p (M,), each > 0.

    Raises:
        InputError: entries that are not finite, or a preference that is not positive.
    """
    matrix: Array = gramian.detach().cpu().double().numpy()
    p: Array = preference.detach().cpu().double().numpy()
    if not np.isfinite(matrix).all():
        raise DivergedError(
            "The tasks' gradients must be finite. Found infinite ones, or not a number: lower the learning rate, or "
            "look at the losses."
        )
    if not (p > 0).all():
        raise InputError(f"`preference` must be positive for each task. Found {p.tolist()}.")
    lengths = np.sqrt(matrix.diagonal())
    active = lengths > NOTHING * lengths.max(initial=0.0)
    alpha, solved, residual = np.zeros_like(p), matrix, 0.0
    if active.any():
        scale, share = lengths[active], p[active]
        cosines = matrix[np.ix_(active, active)] / scale / scale[:, None]
        np.fill_diagonal(cosines, 1.0)
        x, residual = _newton(cosines, share)
        if not x.max() <= CANCELS * np.sqrt(share.sum()):
            np.fill_diagonal(cosines, 1.0 + RIDGE)
            x, residual = _newton(cosines, share)
            solved = matrix + RIDGE * np.diag(matrix.diagonal())
        alpha[active] = x / scale
    alpha, solved, p = (np.ascontiguousarray(part) for part in (alpha, solved, p))
    return Bargain(torch.from_numpy(alpha), torch.from_numpy(solved), torch.from_numpy(p), residual)


def _newton(cosines: Array, p: Array, steps: int = 100) -> tuple[Array, float]:
    """The x > 0 with C x = p / x, and its relative residual; where x runs away it is let go early."""
    x = np.sqrt(p)
    limit = 4 * CANCELS * np.sqrt(p.sum())
    product = cosines @ x
    for _ in range(steps):
        slope = product - p / x
        direction = np.asarray(np.linalg.solve(cosines + np.diag(p / x**2), slope), np.float64)
        decrement = slope @ direction
        if decrement <= 1e-28 * p.sum() or x.max() > limit:
            break
        # Stay inside, then shorten until f falls as it should; close to the solution its digits run out, not ours.
        size = min(1.0, 0.99 / max(float((direction / x).max()), 1e-300))
        if decrement > 1e-8 * p.sum():
            while _change(cosines, p, x, product, -size * direction) > -1e-4 * size * decrement and size > 1e-10:
                size /= 2
        x = x - size * direction
        product = cosines @ x
    goal = p / x
    return x, float(np.linalg.norm(product - goal) / np.linalg.norm(goal))


def _change(cosines: Array, p: Array, x: Array, product: Array, step: Array) -> float:
    """f(x + step) − f(x)."""
    return float(step @ product + 0.5 * step @ (cosines @ step) - p @ np.log1p(step / x))
