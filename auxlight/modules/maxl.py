"""MAXL and WA-MAXL: a label network learns, through a step of the main network, which labels help it."""

import itertools
from collections.abc import Sequence
from typing import Any, Unpack, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.combiners import WeightedSum
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.functional import batch_entropy, class_losses
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import Hypergradient, LookAheadGradient
from auxlight.labelers.network import LabelNetwork
from auxlight.lookahead import LookAhead
from auxlight.modules.classifier import AuxiliaryClassifier, ClassifierOptions
from auxlight.networks.vgg import VGG
from auxlight.seeding import derive_seed, global_seed, isolated_rng


class JointLosses(nn.Module):
    """The main network as `auxlight.influence` sees it; shares the module's parts and its primary loss."""

    def __init__(self, module: AuxiliaryClassifier) -> None:
        super().__init__()
        self.trunk = module.trunk
        self.primary_head = module.primary_head
        self.auxiliary_head = cast(Any, module.labelled_task).head
        self.focal_gamma = module.focal_gamma
        self.primary_losses = module.primary_losses

    def forward(self, image: Tensor, primary: Tensor) -> tuple[Tensor, Tensor]:
        """Primary losses (B,), and auxiliary losses (B, K) of every class."""
        features = self.trunk(image)
        batch = Batch(image, primary, None, torch.arange(len(primary)))
        losses = self.primary_losses(self.primary_head(features), batch)
        return losses, class_losses(self.auxiliary_head(features), self.focal_gamma)


class MAXLModule(AuxiliaryClassifier):
    """Meta Auxiliary Learning (Liu et al., 2019), and WA-MAXL of the RL-AUX paper with a weighted `LabelNetwork`.

    Two levels: the main network θ minimises L_pri + λ·L_aux on the label network's labels; the label network φ
    minimises L_pri(θ⁺) + `entropy_weight`·H, with θ⁺ one step of θ on its labels and H the batch's *negative* label
    entropy. As in MAXL each epoch has two passes over the training images: one for θ, then one for φ, in which θ stays.

    The gradient through θ⁺ is exact and needs no second-order graph (`auxlight.influence`); the authors' second release
    approximates it by a finite difference. In WA-MAXL each image has a weight of its own; the RL-AUX authors' code
    multiplies the weights of a batch into a (B, B) matrix. An overridden `step` and gradient clipping are not looked
    through. φ's step is computed in full precision, also where the main
    network trains in mixed.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        depth: 11, 13, 16 or 19.
        width: factor on every layer's channels; 1 is the paper's network.
        in_channels: channels of the image.
        trunk: another trunk than the VGG, with an attribute `feature_dim`.
        hypergradient: estimator of ∂L_pri(θ⁺)/∂(labels, weights); exact look-ahead by default.
        entropy_weight: coefficient of H; MAXL: 0.2.
        lookahead_lr: rate of the look-ahead's step; the main optimizer's present rate by default.
        fused: one pass instead of two: on each batch φ's step, then θ's.
        label_optimizer: of the label network; MAXL: SGD at 1e-3 with weight decay 5e-4.
        label_scheduler: of the label network, stepped each epoch.
        clip_grad_norm: of the main network.
        label_clip_grad_norm: of the label network.
        **options: labeler (a `LabelNetwork`), aux_weight, focal_gamma, optimizer, scheduler and the other arguments of
            `AuxiliaryClassifier`.

    Raises:
        InputError: a labeler that is no `LabelNetwork`, another combiner than the weighted sum; at the start of a fit,
            fp16, several devices, or two passes without an auxlight data module.
    """

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        trunk: nn.Module | None = None,
        hypergradient: Hypergradient | None = None,
        entropy_weight: float = 0.2,
        lookahead_lr: float | None = None,
        fused: bool = False,
        label_optimizer: OptimizerCallable = lambda params: SGD(params, lr=1e-3, weight_decay=5e-4),
        label_scheduler: LRSchedulerCallable | None = None,
        clip_grad_norm: float | None = None,
        label_clip_grad_norm: float | None = None,
        **options: Unpack[ClassifierOptions],
    ) -> None:
        labeler = options.setdefault("labeler", LabelNetwork())
        if not isinstance(labeler, LabelNetwork):
            raise InputError(f"`labeler` of MAXLModule must be a LabelNetwork. Found {type(labeler).__name__}.")
        super().__init__(hierarchy, trunk or VGG(depth, width, in_channels), **options)
        if type(self.combiner) is not WeightedSum:
            raise InputError(
                "`combiner` of MAXLModule must be the WeightedSum, whose step it looks through. "
                f"Found {type(self.combiner).__name__}."
            )
        if lookahead_lr is not None and not lookahead_lr > 0:
            raise InputError(f"`lookahead_lr` must be positive, or null for the optimizer's. Found {lookahead_lr}.")
        self.automatic_optimization = False
        self.hypergradient = hypergradient or LookAheadGradient()
        self.entropy_weight = entropy_weight
        self.lookahead_lr = lookahead_lr
        self.fused = fused
        self.label_optimizer = label_optimizer
        self.label_scheduler = label_scheduler
        self.clip_grad_norm = clip_grad_norm
        self.label_clip_grad_norm = label_clip_grad_norm

    @property
    def label_network(self) -> LabelNetwork:
        """φ."""
        return cast(LabelNetwork, cast(Any, self.labelled_task).labeler)

    def on_fit_start(self) -> None:
        """Check what the two levels need."""
        if str(self.trainer.precision).startswith("16"):
            raise InputError(
                "MAXLModule has no loss scaling, without which the label network's small gradients vanish in fp16. "
                f"Found precision={self.trainer.precision}: set `trainer.precision` to bf16-mixed or 32."
            )
        if self.trainer.world_size > 1:
            raise InputError(
                f"MAXLModule runs on one device for now. Found {self.trainer.world_size}: set `trainer.devices: 1`."
            )
        if not self.fused and not isinstance(getattr(self.trainer, "datamodule", None), ImageDataModule):
            raise InputError(
                "MAXLModule's second pass draws images beside the training loop and needs an auxlight data module. "
                "Found none: subclass ImageDataModule, or set `fused: true`."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """θ's step on the label network's present labels; fused, φ's before it."""
        if self.fused:
            self.label_step(batch)
        main, _ = self._lightning_optimizers()
        loss = super().training_step(batch, batch_idx)
        main.zero_grad()
        self.manual_backward(loss)
        self.clip_gradients(main, self.clip_grad_norm, "norm")
        main.step()
        if self.scheduler is not None and self.scheduler_interval == "step":
            self._step_scheduler(self._schedulers()[0])
        return loss.detach()

    def on_train_epoch_end(self) -> None:
        """The second pass: φ's steps; then the schedules."""
        if not self.fused:
            data = cast(ImageDataModule, cast(Any, self.trainer).datamodule)
            batches = data.training_batches("meta", self.current_epoch)
            for batch in itertools.islice(batches, int(self.trainer.num_training_batches)):
                self.label_step(batch)
        schedulers = self._schedulers()
        if self.scheduler is not None and self.scheduler_interval == "epoch":
            self._step_scheduler(schedulers.pop(0))
        if self.label_scheduler is not None:
            self._step_scheduler(schedulers[-1])

    def label_step(self, batch: Batch) -> None:
        """φ's step: the exact gradient of L_pri(θ⁺) on the same batch, and of the label entropy."""
        main, label = (cast(Any, optimizer) for optimizer in self.optimizers(use_pl_optimizer=False))  # type: ignore[union-attr]
        with torch.autocast(self.device.type, enabled=False):
            target = self.label_network.generate(batch)
            detached = AuxiliaryTarget(*(part.detach() for part in target))
            step = LookAhead(main, self.lookahead_lr)
            with isolated_rng(derive_seed(global_seed(), "meta", self.current_epoch, int(batch.index[0]))):
                slope = self.hypergradient(JointLosses(self), batch, detached, batch, step, self.aux_weight)
            entropy = batch_entropy(target.probabilities)
            # The slope is constant in φ: this loss has the gradient that is wanted.
            loss = (slope.probabilities * target.probabilities).sum() + (slope.weight * target.weight).sum()
        label.zero_grad()
        self.manual_backward(loss + self.entropy_weight * entropy)
        self.clip_gradients(label, self.label_clip_grad_norm, "norm")
        label.step()
        self.log_dict(
            {
                "labels/meta_loss": slope.loss,
                "labels/entropy": -entropy.detach(),
                "labels/top_probability": detached.probabilities.max(1).values.mean(),
                "labels/weight_mean": detached.weight.mean(),
            },
            on_step=False,
            on_epoch=True,
            batch_size=len(batch.primary),
        )
        self.log("labels/weight_min", detached.weight.min(), on_step=False, on_epoch=True, reduce_fx="min")
        self.log("labels/weight_max", detached.weight.max(), on_step=False, on_epoch=True, reduce_fx="max")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The main network's optimizer and the label network's, with their schedules."""
        own = {id(parameter) for parameter in self.label_network.parameters()}
        main = self.make_optimizer(
            self.optimizer, [p for p in self.parameters() if p.requires_grad and id(p) not in own]
        )
        label = self.make_optimizer(self.label_optimizer, list(self.label_network.parameters()))
        pairs = ((main, self.scheduler), (label, self.label_scheduler))
        return [main, label], [self.make_scheduler(make, optimizer) for optimizer, make in pairs if make is not None]

    def _step_scheduler(self, scheduler: Any) -> None:
        metric = None
        if isinstance(scheduler, ReduceLROnPlateau):
            metric = self.trainer.callback_metrics.get("val/primary_loss")
            if metric is None:
                raise InputError(
                    "A ReduceLROnPlateau scheduler needs a validation before each of its steps. Found none: validate "
                    "every epoch, or choose another scheduler."
                )
        self.lr_scheduler_step(scheduler, metric)

    def _lightning_optimizers(self) -> tuple[Any, Any]:
        main, label = cast(Any, self.optimizers())
        return main, label

    def _schedulers(self) -> list[Any]:
        schedulers = self.lr_schedulers()
        return list(schedulers) if isinstance(schedulers, list) else [s for s in (schedulers,) if s is not None]
