"""Rules on the gradients that the tasks have for the parameters that they share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.errors import InputError


class TaskGradients(NamedTuple):
    """Gradients of the tasks' mean losses, averaged over the devices.

    Attributes:
        matrix: (M, P), for the P shared parameters; a row per task.
        own: one (M, …) per parameter of the heads, on this device, where any task depends on it; else None.
    """

    matrix: Tensor
    own: list[Tensor | None]

    @classmethod
    def of(cls, means: Tensor, context: StepContext) -> "TaskGradients":
        """By one backward pass per task.

        Args:
            means: (M,) losses of the tasks, with their graph, which is used up.
            context: whose parameters they are for.
        """
        if not context.shared:
            raise InputError(
                "A rule on gradients needs shared parameters that train. Found none: unfreeze the trunk, or choose "
                "another combiner."
            )
        matrix = means.new_empty(len(means), sum(p.numel() for p in context.shared), dtype=context.shared[0].dtype)
        own: list[dict[int, Tensor]] = [{} for _ in context.own]
        count = len(context.shared)
        for number, mean in enumerate(means.unbind()):
            slopes = _slopes(mean, [*context.shared, *context.own], retain_graph=number < len(means) - 1)
            parts = zip(slopes[:count], context.shared, strict=True)
            torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for g, p in parts], out=matrix[number])
            for rows, slope in zip(own, slopes[count:], strict=True):
                if slope is not None:
                    rows[number] = slope
        return cls(context.mean(matrix), [_stacked(rows, len(means)) for rows in own])

    def gramian(self) -> Tensor:
        """(M, M) float64: inner products of the rows, in which squares of float32 neither overflow nor vanish."""
        total = self.matrix.new_zeros(len(self.matrix), len(self.matrix), dtype=torch.float64)
        for part in torch.split(self.matrix, 2**18, 1):
            part = part.double()
            total.addmm_(part, part.T)
        return total


def _slopes(mean: Tensor, parameters: list[nn.Parameter], retain_graph: bool) -> Sequence[Tensor | None]:
    if not mean.requires_grad:  # a task without a label in this batch
        return [None] * len(parameters)
    return torch.autograd.grad(mean, parameters, retain_graph=retain_graph, allow_unused=True)


def _stacked(rows: dict[int, Tensor], count: int) -> Tensor | None:
    """The tasks' gradients of one parameter; most heads have one task's alone."""
    if not rows:
        return None
    some = next(iter(rows.values()))
    return torch.stack([rows.get(number, torch.zeros_like(some)) for number in range(count)])


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

        class Normalised(GradientCombiner):          # every task pulls equally hard
            def combine(self, gradients, means, context):
                weights = gradients.matrix.norm(dim=1).reciprocal()
                return Update(weights @ gradients.matrix, torch.ones_like(means))
    """

    computes_gradients = True

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        means = losses.means()
        total = means.detach().sum()
        gradients = TaskGradients.of(means, context)
        with torch.no_grad():
            update = self.combine(gradients, means.detach(), context)
        shared = torch.split(update.shared, [p.numel() for p in context.shared])
        own = [torch.zeros_like(p) if g is None else torch.tensordot(update.own.to(g), g, 1)
               for p, g in zip(context.own, gradients.own, strict=True)]  # fmt: skip
        slopes = [*(part.view_as(p) for part, p in zip(shared, context.shared, strict=True)), *own]
        stand_in: Tensor = _StandIn.apply(total, len(slopes), *slopes, *context.shared, *context.own)  # type: ignore[no-untyped-call]
        return stand_in

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
        gramian = gradients.gramian()
        norms = gramian.diagonal().sqrt()
        self.note("cosine", gramian[0, 1:] / (norms[0] * norms[1:]).clamp_min(torch.finfo(norms.dtype).tiny), 1)
        weights = self.weigh(gramian, means, context).to(means)
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
