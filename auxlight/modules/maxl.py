"""MAXL and WA-MAXL: a label network learns, through a step of the main network, which labels help it."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Unpack, cast

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.optim import SGD

from auxlight.batch import Batch
from auxlight.convolutions import ConvolutionOutputs
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import Hypergradient, LookAheadGradient
from auxlight.lookahead import LookAhead
from auxlight.modules.bilevel import BilevelModule, BilevelOptions
from auxlight.modules.joint_losses import looks_through
from auxlight.seeding import isolated_rng
from auxlight.tasks import LabelledTask


class MAXLModule(BilevelModule):
    """Meta Auxiliary Learning (Liu et al., 2019), and WA-MAXL of the RL-AUX paper with a weighted `LabelNetwork`.

    The main network θ minimises L_pri + λ·L_aux on the label network's labels; the label network φ minimises
    L_pri(θ⁺) + `entropy_weight`·H, with θ⁺ one step of θ on its labels and H the batch's *negative* label entropy. As
    in MAXL each epoch has two passes over the training images: one for θ, then one for φ, in which θ stays.

    The gradient through θ⁺ is exact and needs no second-order graph (`auxlight.influence`); the authors' second release
    approximates it by a finite difference. In WA-MAXL each image has a weight of its own; the RL-AUX authors' code
    multiplies the weights of a batch into a (B, B) matrix. Gradient clipping is not looked through.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        hypergradient: estimator of ∂L_pri(θ⁺)/∂(labels, weights); exact look-ahead by default.
        fused: one pass instead of two: on each batch both networks step, φ by the very step that θ takes. Where θ's
            optimizer is SGD without clipping, that step is not computed twice.
        lookahead_steps: steps of θ, on a batch each, that φ looks ahead by; MAXL: 1. One step likes labels that disturb
            it least (short-horizon bias: Wu et al., 2018). φ's steps are n times fewer, and cost about 1.5n as much.
        lookahead_lr: rate of the look-ahead's steps; the main optimizer's present rate by default.
        **options: labeler (a `LabelNetwork`), depth, width, entropy_weight (MAXL: 0.2), label_optimizer (MAXL: SGD at
            1e-3 with weight decay 5e-4) and the other arguments of `BilevelModule`.

    Raises:
        InputError: what `BilevelModule` refuses; fused with several steps; two passes without an auxlight data module.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        hypergradient: Hypergradient | None = None,
        fused: bool = False,
        lookahead_steps: int = 1,
        lookahead_lr: float | None = None,
        **options: Unpack[BilevelOptions],
    ) -> None:
        options.setdefault("entropy_weight", 0.2)
        options.setdefault("label_optimizer", partial(SGD, lr=1e-3, weight_decay=5e-4))
        super().__init__(hierarchy, hypergradient=hypergradient or LookAheadGradient(), **options)
        if lookahead_steps < 1 or (fused and lookahead_steps > 1):
            raise InputError(
                "`lookahead_steps` must be at least 1, and 1 where both networks step at once. "
                f"Found lookahead_steps={lookahead_steps}, fused={fused}."
            )
        if lookahead_lr is not None and not lookahead_lr > 0:
            raise InputError(
                f"`lookahead_lr` must be positive, or null for the optimizer's. Found lookahead_lr={lookahead_lr}."
            )
        self.fused = fused
        self.lookahead_steps = lookahead_steps
        self.lookahead_lr = lookahead_lr
        self.needs_data_module = not fused

    def look_ahead(self) -> LookAhead:
        """See `BilevelModule.look_ahead`."""
        return LookAhead(self.plain_optimizers()[0], self.lookahead_lr)

    def on_train_start(self) -> None:
        """Check that the look-ahead fits into an epoch, and say so where the label network will not learn."""
        super().on_train_start()
        steps = self.trainer.estimated_stepping_batches
        if not self.fused and steps < self.trainer.num_training_batches:
            rank_zero_warn(
                f"The label network steps after each epoch of {self.trainer.num_training_batches} batches, but the run "
                f"has only {steps} steps: its labels will not be learned. Raise `max_steps`, or set `fused: true`."
            )
        if self.lookahead_steps > self.trainer.num_training_batches and not getattr(self.trainer, "fast_dev_run", 0):
            raise InputError(
                f"`lookahead_steps` must not exceed the {self.trainer.num_training_batches} batches of an epoch. "
                f"Found lookahead_steps={self.lookahead_steps}."
            )

    def take_steps(self, batch: Batch, batch_idx: int) -> Tensor:
        """θ's step; fused, φ's beside it."""
        if not self.fused:
            return super().take_steps(batch, batch_idx)
        with self.full_precision():
            targets = self.generate([batch])
            problem = self.problem([batch], targets)
            meta = None if self._step_is_the_look_ahead() else self.hypergradient(problem)
            rules, start = problem.step.rules(problem.network), problem.step.start(problem.network)
            if meta is None:
                start = start._replace(parameters={name: value.clone() for name, value in start.parameters.items()})
        kept = ConvolutionOutputs(problem.keep)
        # The dropout masks of the look-ahead; the labels that it was given.
        seeded, given = isolated_rng(problem.seed), cast(LabelledTask, self.labelled_task).given(problem.targets[0])
        with seeded, given, kept.recorded():
            loss = super().take_steps(batch, batch_idx)
        with self.full_precision():
            if meta is None:
                positions = [start, problem.step.start(problem.network)]
                meta = cast(LookAheadGradient, self.hypergradient).of_steps(problem, rules, positions, kept)
            self.learn([batch], targets, meta)
        return loss

    def finish_pass(self) -> None:
        """The second pass: φ's steps."""
        if not self.fused:
            batches = cast(ImageDataModule, self.data).training_batches("meta", self.current_epoch)
            batches = itertools.islice(batches, int(self.trainer.num_training_batches))
            for group in zip(*[batches] * self.lookahead_steps, strict=False):
                self.label_step(group)
        super().finish_pass()

    def _step_is_the_look_ahead(self) -> bool:
        """Whether θ's step ends where the look-ahead would."""
        plain = type(self.plain_optimizers()[0]) is SGD and self.lookahead_lr is None and self.clip_grad_norm is None
        return plain and looks_through(self) and type(self.hypergradient) is LookAheadGradient
