"""Weights for every single loss, by what it does for the primary task on other images."""

from typing import Literal

import torch
from torch import Tensor

from auxlight.combiners.base import Combiner, TaskLosses
from auxlight.combiners.context import StepContext


class SLGrad(Combiner):
    """Sample-level weighting (Grégoire et al., 2023): L = Σ_m Σ_i w_im ℓ_im, w_im ∝ max(0, ⟨∇ℓ_im, ∇L_V⟩), Σ w = 1.

    L_V is the primary loss on held-out images (or, without a `meta_split`, on other training images). No gradient of a
    single sample is taken: one forward-mode pass along ∇L_V gives all inner products (`auxlight.influence`). Where no
    sample helps, the step is the primary task's alone. A labeler's weights belong to the losses, ℓ_im = λ_i ℓ_i.

    Args:
        held_out: judge by the images of the data module's `meta_split`, rather than by training images.
    """

    computes_gradients = True
    replays = True

    def __init__(self, held_out: bool = True) -> None:
        super().__init__()
        self.judges_by: Literal["train", "meta"] | None = "meta" if held_out else "train"

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`."""
        parameters = [*context.shared, *context.own]
        slopes = torch.autograd.grad(context.judged(), parameters, materialize_grads=True)
        named = context.average({str(number): slope for number, slope in enumerate(slopes)})
        helpful = [d.clamp_min(0) for d in context.derivatives(list(named.values()))]
        totals = torch.stack([part.sum() for part in helpful])
        shares = context.mean(totals)
        whole = shares.sum()
        self.note("weight", shares / whole.clamp_min(torch.finfo(whole.dtype).tiny))
        if not whole > 0:
            return losses.means()[0]
        terms = [(part / whole * loss).sum() for part, loss in zip(helpful, losses.samples(), strict=True)]
        return torch.stack(terms).sum()
