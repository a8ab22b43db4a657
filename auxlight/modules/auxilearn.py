"""AuxiLearn's learned new task: a label network trained by implicit differentiation."""

from collections.abc import Sequence
from functools import partial
from typing import Unpack

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import SGD

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import Hypergradient, NeumannGradient
from auxlight.modules.bilevel import BilevelModule, BilevelOptions


class AuxiLearnModule(BilevelModule):
    """Auxiliary Learning by Implicit Differentiation, learning a new task (Navon et al., 2021).

    The main network θ minimises L_pri + λ·L_aux on the label network's labels. Every `label_interval` steps the label
    network φ takes one along dL_A/dφ = −∇L_A · H⁻¹ · ∂∇(L_pri + L_aux)/∂φ, as if θ stood at a minimum of its training
    loss: L_A is the primary loss on the auxiliary set (the data module's `meta_split`), H the Hessian of the training
    loss on another training batch, and H⁻¹ a truncated Neumann series.

    Beside the authors' code: there the gradient leaves out the series' factor η, so that a label learning rate of 1
    here, with η = 1e-3, is one of 1e-3 there; and θ in H is there the trunk and the primary head, here the auxiliary
    head too, for its weights depend on the labels as the trunk's do.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        hypergradient: estimator of dL_A/d(labels, weights); the Neumann series by default.
        label_interval: steps of θ for each of φ; the authors' code: 30.
        **options: labeler (a `LabelNetwork`), depth, width, aux_weight (the authors' code: 0.25), label_optimizer (by
            default SGD at 1 with momentum 0.9) and the other arguments of `BilevelModule`.

    Raises:
        InputError: what `BilevelModule` refuses; an interval below 1; at the start of a fit, data without `meta_split`.
    """

    needs_data_module = True

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        hypergradient: Hypergradient | None = None,
        label_interval: int = 30,
        **options: Unpack[BilevelOptions],
    ) -> None:
        options.setdefault("aux_weight", 0.25)
        options.setdefault("label_optimizer", partial(SGD, lr=1.0, momentum=0.9))
        super().__init__(hierarchy, hypergradient=hypergradient or NeumannGradient(), **options)
        if label_interval < 1:
            raise InputError(f"`label_interval` must be at least 1. Found label_interval={label_interval}.")
        self.label_interval = label_interval

    def on_fit_start(self) -> None:
        """Check what the method needs."""
        super().on_fit_start()
        if self.data is not None and not self.data.meta_split:
            raise InputError(
                "AuxiLearnModule judges labels on held-out training images. Found meta_split=0: set `data.meta_split` "
                "to their share, such as 0.05."
            )

    def on_train_start(self) -> None:
        """Say so where the label network will not learn."""
        super().on_train_start()
        if self.label_interval > self.trainer.estimated_stepping_batches:
            rank_zero_warn(
                f"The label network steps every {self.label_interval} steps, but the run has only "
                f"{self.trainer.estimated_stepping_batches}: its labels will not be learned. Lower `label_interval`."
            )

    def take_steps(self, batch: Batch, batch_idx: int) -> Tensor:
        """θ's step, and now and then φ's."""
        loss = super().take_steps(batch, batch_idx)
        if self.trainer.global_step % self.label_interval == 0:
            self.label_step([self.next_batch("implicit", "train")])
        return loss
