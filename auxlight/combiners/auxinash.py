"""Auxiliary learning as an asymmetric bargaining game."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import SGD

from auxlight.combiners.bargaining import Bargain, bargain
from auxlight.combiners.base import TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.combiners.gradients import TaskGradients, TaskWeights, Update
from auxlight.combiners.learned import LearnedCombiner, MakeOptimizer
from auxlight.errors import InputError
from auxlight.implicit import check_series, implicit_gradient


class AuxiNash(LearnedCombiner, TaskWeights):
    """AuxiNash (Shamsian et al., 2023): tasks bargain for the update, with a power p_m each that is learned.

    The weights α > 0 of the update Σ_m α_m g_m solve GᵀGα = p / α (`auxlight.combiners.bargaining`): they depend on
    the gradients' directions, and make no difference of their lengths. Every `interval` steps the preferences p take
    a step along the implicit hypergradient of the primary loss L_V on another batch,

        dL_V/dp = −∇_θL_V · H⁻¹ · ∂_α∇_θL_T · ∂α/∂p,    L_T = Σ_m α_m L_m,

    θ the shared parameters and H = ∇²_θL_T, its inverse a Neumann series; then p is clipped from below and scaled to
    sum to M. Uniform preferences that are not learned are Nash-MTL; given ones trace the Pareto front.

    As in the authors' code the hypergradient leaves out the series' factor η, which the rate makes up for; the heads'
    gradients are weighted by α as well, and the combined gradient of the shared parameters is clipped.

    Args:
        preference: one positive number per task, the primary one first; only their shares count. Uniform by default.
        learn: let the preferences be learned; False holds them.
        interval: steps between those of the preferences.
        held_out: judge by the images of the data module's `meta_split`, rather than by another training batch.
        optimizer: of the preferences; SGD at 0.005 with momentum 0.9.
        clip: largest norm of their gradient; None leaves it.
        terms: of the Neumann series beyond the first.
        eta: η of the series.
        least: to which a preference is raised before all are scaled, where 1 is an even share.
        max_norm: largest norm of the combined gradient of the shared parameters; None leaves it.

    Raises:
        InputError: values out of range, or preferences of another number than the tasks.
    """

    preference: nn.Parameter
    steps: Tensor

    def __init__(
        self,
        preference: Sequence[float] | None = None,
        learn: bool = True,
        interval: int = 25,
        held_out: bool = False,
        optimizer: MakeOptimizer = lambda params: SGD(params, lr=5e-3, momentum=0.9),
        clip: float | None = 1.0,
        terms: int = 3,
        eta: float = 1e-4,
        least: float = 1e-4,
        max_norm: float | None = 1.0,
    ) -> None:
        super().__init__(optimizer, clip)
        check_series(terms, eta)
        if interval < 1:
            raise InputError(f"`interval` must be at least 1. Found interval={interval}.")
        if max_norm is not None and not max_norm > 0:
            raise InputError(f"`max_norm` must be positive, or null. Found max_norm={max_norm}.")
        if not 0 < least < 1:
            raise InputError(f"`least` must lie between 0 and 1, an even share. Found least={least}.")
        if preference is not None and not isinstance(preference, Sequence):
            raise InputError(f"`preference` must be a list, one number per task. Found preference={preference!r}.")
        if preference is not None and not all(0 < share < float("inf") for share in preference):
            raise InputError(f"`preference` must be a positive number per task. Found {list(preference)}.")
        self.given = None if preference is None else tuple(preference)
        self.learn = learn
        self.interval = interval
        self.judges_by: Literal["train", "meta"] | None = ("meta" if held_out else "train") if learn else None
        self.trains_aside = learn
        self.terms = terms
        self.eta = eta
        self.least = least
        self.max_norm = max_norm
        self._bargain: Bargain | None = None

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        if len(names) < 2:
            raise InputError(
                "`combiner` AuxiNash needs an auxiliary task to bargain with. Found none: set `labeler` or `tasks`, or "
                "leave the combiner out."
            )
        given = torch.ones(len(names)) if self.given is None else torch.tensor(self.given)
        if len(given) != len(names):
            raise InputError(
                f"`preference` must hold a number for each of the {len(names)} tasks ({', '.join(names)}). "
                f"Found {len(given)}: {list(self.given or ())}."
            )
        self.preference = nn.Parameter(self._valid(given), requires_grad=False)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        super().bind(names)

    def _valid(self, preference: Tensor) -> Tensor:
        preference = (preference / preference.sum() * len(preference)).clamp_min(self.least)
        return preference / preference.sum() * len(preference)

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`; the preferences' step is taken after the weights are known, before θ moves."""
        loss = super().forward(losses, context)
        self.steps += 1
        if self.learn and context.learns and int(self.steps) % self.interval == 0:
            self.learn_preferences(context)
        return loss

    def weigh(self, gramian: Tensor, means: Tensor, context: StepContext) -> Tensor:
        """See `TaskWeights.weigh`."""
        self._bargain = bargain(gramian, self.preference)
        self.note("preference", self.preference / len(self.preference))
        return self._bargain.weights.to(gramian)

    def combine(self, gradients: TaskGradients, means: Tensor, context: StepContext) -> Update:
        """See `GradientCombiner.combine`."""
        update = super().combine(gradients, means, context)
        if self.max_norm is None:
            return update
        norm = update.shared.norm()
        return update._replace(shared=update.shared * (self.max_norm / norm.clamp_min(self.max_norm)))

    def learn_preferences(self, context: StepContext) -> None:
        """The preferences' step, by the weights of the last bargain."""
        if self._bargain is None:
            raise InputError("The preferences follow a bargain. Found none: take a step first.")
        slope = preference_gradient(self._bargain, context, self.terms, self.eta) / self.eta
        self.move([slope], context)
        with torch.no_grad():
            self.preference.copy_(self._valid(self.preference))


def preference_gradient(solved: Bargain, context: StepContext, terms: int, eta: float) -> Tensor:
    """dL_V/dp (M,), float64 on the CPU: through the minimum of L_T, and through the bargain.

    Args:
        solved: the bargain whose α weigh the tasks.
        context: which gives the losses of L_T and L_V.
        terms: of the Neumann series beyond the first.
        eta: η of the series.
    """
    with torch.enable_grad(), torch.autocast(context.shared[0].device.type, enabled=False):
        judged, means = context.judged(), context.another().means()
        alpha = solved.weights.to(means, copy=True).requires_grad_()
        (slope,) = implicit_gradient(
            judged, (alpha * means).sum(), context.shared, [alpha], terms, eta, context.average
        )
    return slope.detach().cpu().double() @ solved.jacobian()
