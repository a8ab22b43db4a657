"""Rules on the gradients that the tasks have for the parameters that they share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.errors import DivergedError, InputError


class TaskGradients(NamedTuple):
    """Gradients of the tasks' mean losses, averaged over the devices.

    Attributes:
        matrix: (M, P), for the P shared parameters; a row per task.
        gramian: (M, M) float64, inner products of the rows; squares of float32 neither overflow nor vanish in it.
        own: of each parameter of the heads, on this device, the gradients by number of the tasks that depend on it.
    """

    matrix: Tensor
    gramian: Tensor
    own: list[dict[int, Tensor]]

    @classmethod
    def of(cls, losses: Sequence[Tensor], context: StepContext) -> "TaskGradients":
        """By one backward pass per task.

        Args:
            losses: M scalars with their graphs, which are used up.
            context: whose parameters they are for.

        Raises:
            InputError: no shared parameters, or gradients that are not finite.
        """
        context.check_shared()
        shared, own = context.shared, [dict[int, Tensor]() for _ in context.own]
        matrix = shared[0].new_empty(len(losses), sum(p.numel() for p in shared), requires_grad=False)
        for number, loss in enumerate(losses):
            slopes = task_slopes(loss, [*shared, *context.own], retain_graph=number < len(losses) - 1)
            parts = zip(slopes[: len(shared)], shared, strict=True)
            torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in parts], out=matrix[number])
            for rows, slope in zip(own, slopes[len(shared) :], strict=True):
                if slope is not None:
                    rows[number] = slope
        matrix = context.mean(matrix)
        gramian = inner_products(matrix)
        check_finite(gramian)
        return cls(matrix, gramian, own)


def primary_cosines(gramian: Tensor) -> Tensor:
    """(M,): of each task's gradient and the primary one's, from their inner products; 0 where either is 0."""
    norms = gramian.diagonal().sqrt()
    return gramian[0] / (norms[0] * norms).clamp_min(torch.finfo(norms.dtype).tiny)


def inner_products(rows: Tensor) -> Tensor:
    """(M, M) float64 of rows (M, P), a part at a time, so that the whole is never held in float64."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for part in torch.split(rows, 2**18, 1):
        part = part.double()
        total.addmm_(part, part.T)
    return total


def check_finite(*values: Tensor) -> None:
    """Refuse gradients from which a rule would learn nonsense for the rest of the run.

    Raises:
        InputError: values that are infinite, or no numbers.
    """
    if not all(torch.isfinite(value).all() for value in values):
        raise DivergedError(
            "The tasks' losses and gradients must be finite. Found infinite ones, or not a number: lower the learning "
            "rate, or look at the losses."
        )


def task_slopes(mean: Tensor, parameters: list[nn.Parameter], retain_graph: bool) -> Sequence[Tensor | None]:
    """A task's gradient for each parameter; None where its loss does not depend on it."""
    if not mean.requires_grad:  # a task without a label in this batch
        return [None] * len(parameters)
    return torch.autograd.grad(mean, parameters, retain_graph=retain_graph, allow_unused=True)


class Update(NamedTuple):
    """What a rule makes of the tasks' gradients.

    Attributes:
        shared: (P,) gradient for the shared parameters.
        own: (M,) factor on the gradient that each task has for its head.
    """

    shared: Tensor
    own: Tensor


class GradientCombiner(Combiner):
    """Combines gradients instead of losses.

    The scalar that `forward` returns is a stand-in: its value is the sum of the losses, its gradient the combined one.
    So optimizers, clipping, mixed precision in bfloat16 and DDP work as with any loss. Under DDP the rule sees the
    gradients of the whole batch, averaged over the devices, and every device comes to the same combined one.

    An own rule is one class::

        class EqualPull(GradientCombiner):           # every task's gradient at the same length
            def combine(self, gradients, means, context):
                weights = gradients.matrix.norm(dim=1).clamp_min(1e-12).reciprocal()
                return Update(weights @ gradients.matrix, weights)
    """

    computes_gradients = True

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        scalars = losses.scalars()
        gradients = TaskGradients.of(scalars, context)
        self.note("cosine", primary_cosines(gradients.gramian)[1:], 1)
        means = torch.stack(scalars).detach()
        # Mixed precision would round the gradients in every product.
        with torch.no_grad(), torch.autocast(gradients.matrix.device.type, enabled=False):
            update = self.combine(gradients, means, context)
            self._check(update, gradients)
            slopes = list(torch.split(update.shared, [p.numel() for p in context.shared]))
            slopes = [part.view_as(p) for part, p in zip(slopes, context.shared, strict=True)]
            parameters = list(context.shared)
            for parameter, rows in zip(context.own, gradients.own, strict=True):
                if rows:
                    terms = [update.own[number].to(slope) * slope for number, slope in rows.items()]
                    slopes.append(torch.stack(terms).sum(0) if len(terms) > 1 else terms[0])
                    parameters.append(parameter)
        stand_in: Tensor = _StandIn.apply(means.sum(), len(slopes), *slopes, *parameters)  # type: ignore[no-untyped-call]
        return stand_in

    def _check(self, update: Update, gradients: TaskGradients) -> None:
        tasks, size = gradients.matrix.shape
        if not isinstance(update, Update) or (update.shared.shape, update.own.shape) != ((size,), (tasks,)):
            found = [tuple(part.shape) for part in update] if isinstance(update, Update) else type(update).__name__
            raise InputError(
                f"`combine` of {type(self).__name__} must return an Update of gradient ({size},), factors ({tasks},). "
                f"Found {found}."
            )

    @abstractmethod
    def combine(self, gradients: TaskGradients, means: Tensor, context: StepContext) -> Update:
        """The combined gradient.

        Args:
            gradients: of the tasks.
            means: (M,) their losses, on this device.
            context: the network.
        """


class TaskWeights(GradientCombiner):
    """A rule that gives each task a weight: the combined gradient is Σ_m weight_m g_m."""

    def combine(self, gradients: TaskGradients, means: Tensor, context: StepContext) -> Update:
        """See `GradientCombiner.combine`; the heads' gradients are weighted as well."""
        weights = self.weigh(gradients.gramian, means, context).to(means)
        self.note("weight", weights)
        return Update(weights.to(gradients.matrix) @ gradients.matrix, weights)

    @abstractmethod
    def weigh(self, gramian: Tensor, means: Tensor, context: StepContext) -> Tensor:
        """Weights (M,) from the gradients' inner products (M, M), float64; the primary task is number 0."""


class _StandIn(torch.autograd.Function):
    """A scalar with given gradients for given parameters."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, count: int, *tensors: Tensor) -> Tensor:
        ctx.slopes = tensors[:count]
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.slopes
        return (None, None, *[None] * len(slopes), *(outer[0] * slope for slope in slopes))
