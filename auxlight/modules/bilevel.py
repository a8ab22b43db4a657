"""What MAXL and AuxiLearn share: a label network that is trained by how its labels serve the primary task."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Unpack, cast

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.combiners import WeightedSum
from auxlight.errors import InputError
from auxlight.hierarchy import LabelHierarchy
from auxlight.hypergradient import Hypergradient, MetaGradient, MetaProblem, TargetGradient
from auxlight.labelers.network import LabelNetwork
from auxlight.lookahead import LookAhead
from auxlight.modules.checks import check_whole_parameters
from auxlight.modules.classifier import AuxiliaryClassifier, ClassifierOptions
from auxlight.modules.joint_losses import JointLosses
from auxlight.modules.label_logs import log_labels
from auxlight.modules.label_loss import label_loss, normalized
from auxlight.modules.manual import finish_gradients, share_statistics, step_plateaus, step_scheduler
from auxlight.modules.optimizers import make_optimizer, make_scheduler
from auxlight.networks.buffers import kept_buffers
from auxlight.networks.vgg import VGG
from auxlight.option_docs import share_docs
from auxlight.seeding import isolated_rng
from auxlight.tasks import LabelledTask


class BilevelOptions(ClassifierOptions, total=False):
    """What every bi-level module takes beside its own arguments; `BilevelModule` says what each means."""

    depth: int
    width: float
    in_channels: int
    trunk: nn.Module | None
    entropy_weight: float
    normalize_hypergradient: bool
    recompute_labels: bool
    label_optimizer: OptimizerCallable
    label_scheduler: LRSchedulerCallable | None
    clip_grad_norm: float | None
    label_clip_grad_norm: float | None


class BilevelModule(AuxiliaryClassifier):
    """Two levels: θ minimises L_pri + λ·L_aux on the labels of φ; φ minimises L_pri of the θ that its labels make.

    A subclass says when φ steps, and through what: it calls `label_step`. The primary loss that φ is judged by is
    measured on the held-out images of the data module's `meta_split`, and without them on the images of the step. φ's
    step is computed in full precision, also where the main network trains in mixed. Of an own subclass it looks
    through `primary_losses` and the trunk, not through an overridden `features`, `task_losses` or `step`. On several
    devices the gradients of both networks, and all that the hypergradient is made of, are averaged.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        hypergradient: estimator of the primary loss's gradient with respect to labels and weights.
        label_optimizer: of the label network.
        entropy_weight: coefficient of the labels' *negative* batch entropy in φ's loss.
        depth: 11, 13, 16 or 19.
        width: factor on every layer's channels; 1 is the papers' network.
        in_channels: channels of the image.
        trunk: another trunk than the VGG, with an attribute `feature_dim`.
        normalize_hypergradient: scale the gradient for labels, and that for weights, to a root mean square of 1/B per
            entry. It is tiny (a step's rate times a batch's share), so that a label network that starts near uniform
            stays there.
        recompute_labels: run the label network a second time rather than hold its graph during the look-ahead: less
            memory for the time of one forward pass. Without effect on a shared trunk.
        label_scheduler: of the label network, stepped each epoch.
        clip_grad_norm: of the main network.
        label_clip_grad_norm: of the label network.
        **options: labeler (a `LabelNetwork`), aux_weight, focal_gamma, optimizer, scheduler and the other arguments of
            `AuxiliaryClassifier`.

    Raises:
        InputError: a labeler that is no `LabelNetwork`, another combiner than the weighted sum, a rate that is not
            positive; at the start of a fit, fp16, or a data module that lacks what the method needs.
    """

    trains_labels = True
    needs_data_module = False

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        *,
        hypergradient: Hypergradient,
        label_optimizer: OptimizerCallable,
        entropy_weight: float = 0.0,
        depth: int = 16,
        width: float = 1.0,
        in_channels: int = 3,
        trunk: nn.Module | None = None,
        normalize_hypergradient: bool = False,
        recompute_labels: bool = False,
        label_scheduler: LRSchedulerCallable | None = None,
        clip_grad_norm: float | None = None,
        label_clip_grad_norm: float | None = None,
        **options: Unpack[ClassifierOptions],
    ) -> None:
        labeler = options["labeler"] = options.get("labeler") or LabelNetwork()
        name = type(self).__name__
        if not isinstance(labeler, LabelNetwork):
            raise InputError(
                f"`labeler` of {name} must be a LabelNetwork. Found {type(labeler).__name__}: MultiHeadVGG takes it."
            )
        if labeler.untrained:
            raise InputError(f"{name} trains its label network. Found `untrained`: MultiHeadVGG takes it.")
        super().__init__(hierarchy, trunk or VGG(depth, width, in_channels), **options)
        main = {id(parameter) for parameter in (*self.trunk.parameters(), *self.primary_head.parameters())}
        if not main.isdisjoint(map(id, labeler.parameters())):
            raise InputError(
                "`labeler` must have parameters of its own. Found some of the main network's: pass another trunk, or "
                "set `shared_trunk: true` for heads on its features."
            )
        if len(self.tasks) > 1:
            raise InputError(
                f"`tasks` of {name} must be empty: its look-ahead knows the label network's task alone. "
                f"Found {len(self.tasks) - 1}."
            )
        if type(self.combiner) is not WeightedSum:
            raise InputError(
                f"`combiner` of {name} must be the WeightedSum, whose step it looks through. "
                f"Found {type(self.combiner).__name__}."
            )
        if not math.isfinite(entropy_weight):
            raise InputError(f"`entropy_weight` must be a finite number. Found entropy_weight={entropy_weight}.")
        for argument, value in (
            ("clip_grad_norm", clip_grad_norm),
            ("label_clip_grad_norm", label_clip_grad_norm),
        ):
            if value is not None and not value > 0:
                raise InputError(f"`{argument}` must be positive, or null to clip nothing. Found {argument}={value}.")
        self.automatic_optimization = False
        self._last_metric: Tensor | None = None  # of a checkpoint
        self.hypergradient = hypergradient
        self.entropy_weight = entropy_weight
        self.normalize_hypergradient = normalize_hypergradient
        self.recompute_labels = recompute_labels
        self.label_optimizer = label_optimizer
        self.label_scheduler = label_scheduler
        self.clip_grad_norm = clip_grad_norm
        self.label_clip_grad_norm = label_clip_grad_norm

    @property
    def label_network(self) -> LabelNetwork:
        """φ."""
        return cast(LabelNetwork, cast(LabelledTask, self.labelled_task).labeler)

    def plain_optimizers(self) -> tuple[Optimizer, Optimizer]:
        """θ's and φ's, torch's own."""
        main, label = cast(Any, self.optimizers(use_pl_optimizer=False))
        return main, label

    def look_ahead(self) -> LookAhead:
        """θ's step as the hypergradient sees it."""
        return LookAhead(self.plain_optimizers()[0])

    def on_fit_start(self) -> None:
        """Check what the two levels need."""
        super().on_fit_start()
        name = type(self).__name__
        precision = str(self.trainer.precision)
        if precision.startswith("16") or precision == "bf16-true":
            raise InputError(
                f"{name} has no loss scaling and needs weights in full precision: in half precision the label "
                f"network's small steps vanish. Found precision={precision}: use bf16-mixed or 32."
            )
        check_whole_parameters(name, self.trainer.strategy)
        if self.data is not None and self.data.num_labelled is not None:
            raise InputError(
                f"{name} labels every training image by its primary class. Found "
                f"num_labelled={self.data.num_labelled}: leave it out."
            )
        if self.hypergradient.one_device and self.trainer.world_size > 1:
            raise InputError(
                f"`hypergradient` {type(self.hypergradient).__name__} works on one device only. "
                f"Found {self.trainer.world_size}: set `trainer.devices: 1`, or choose another."
            )
        if self.needs_data_module and self.data is None:
            raise InputError(
                f"{name} draws images beside the training loop and needs an auxlight data module. Found none: "
                "subclass ImageDataModule."
            )

    def on_train_start(self) -> None:
        """Build the look-ahead once, so that what it refuses is refused now."""
        self.look_ahead()
        if any(isinstance(optimizer, LBFGS) for optimizer in self.plain_optimizers()):
            raise InputError("An optimizer must step on one gradient. Found LBFGS, which needs several: choose SGD.")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The steps on a batch; after the last of an epoch, whatever the devices have to do together.

        `on_train_epoch_end` is too late for that: there the progress bar of the first device already waits for the
        others to average their metrics. And a checkpoint of the epoch's last step holds it.
        """
        if self.data is None and (batch.primary < 0).any():  # of a data module `on_fit_start` has seen it
            raise InputError(
                f"{type(self).__name__} labels every training image by its primary class. Found some without (−1)."
            )
        loss = self.take_steps(batch, batch_idx)
        if self.trainer.is_last_batch:
            self.finish_pass()
        return loss

    def take_steps(self, batch: Batch, batch_idx: int) -> Tensor:
        """θ's step on the label network's present labels; a subclass adds φ's."""
        main = cast(Any, self.optimizers())[0]  # Lightning's wrapper: its steps are the trainer's global steps
        loss = super().training_step(batch, batch_idx)
        main.zero_grad()
        # Averaged here and not by DDP, which would wait for gradients of the label network.
        with getattr(self.trainer.model, "no_sync", nullcontext)():
            self.manual_backward(loss)
        parameters = [p for group in main.param_groups for p in group["params"] if p.grad is not None]
        finish_gradients(parameters, self.average, self.clip_grad_norm)
        main.step()
        if self.scheduler_interval == "step":
            step_scheduler(self, self.plain_optimizers()[0])
        return loss.detach()

    def on_validation_start(self) -> None:
        """Evaluate with the statistics that a checkpoint will hold."""
        if self.trainer.state.fn == "fit":
            share_statistics(self, self.average)

    def finish_pass(self) -> None:
        """Once the last batch of an epoch is done: the epoch's schedules, too."""
        share_statistics(self, self.average)
        main, label = self.plain_optimizers()
        if self.scheduler_interval == "epoch":
            step_scheduler(self, main)
        step_scheduler(self, label)

    def on_train_epoch_end(self) -> None:
        """Step the schedules that ask for a metric, which only now is there."""
        step_plateaus(self, self.trainer.callback_metrics.get("val/primary_loss", self._last_metric))
        self._last_metric = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """With the last validation's loss: a run resumed between it and the epoch's end finds it there."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["last_metric"] = self.trainer.callback_metrics.get("val/primary_loss", self._last_metric)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        super().on_load_checkpoint(checkpoint)
        self._last_metric = checkpoint.get("last_metric")

    def label_step(self, batches: Sequence[Batch]) -> None:
        """φ's step: along the gradient of the primary loss that training on the labels of these batches leads to."""
        with self.full_precision():
            targets = self.generate(batches)
            self.learn(batches, targets, self.hypergradient(self.problem(batches, targets)))

    def full_precision(self) -> AbstractContextManager[None]:
        """Inside this block nothing runs in mixed precision."""
        return torch.autocast(self.device.type, enabled=False)

    def generate(self, batches: Sequence[Batch]) -> list[AuxiliaryTarget]:
        """The label network's targets: with their graph, unless it is to be recomputed."""
        if not self._recomputes():
            return [self._generate(batch) for batch in batches]
        with torch.no_grad(), kept_buffers(self.label_network):
            return [self._generate(batch) for batch in batches]

    def problem(self, batches: Sequence[Batch], targets: Sequence[AuxiliaryTarget]) -> MetaProblem:
        """What the hypergradient is asked for."""
        return MetaProblem(
            JointLosses(self),
            batches,
            [AuxiliaryTarget(*(part.detach() for part in target)) for target in targets],
            [self.next_batch("held out", "meta")] if self.data is not None and self.data.meta_split else batches,
            self.look_ahead(),
            self.aux_weight,
            self.average,
            self.draw_seed("look-ahead", batches[0]),
            keep=0.15 if self.recompute_labels else 0.45,  # recomputing asks for memory
        )

    def learn(self, batches: Sequence[Batch], targets: Sequence[AuxiliaryTarget], meta: MetaGradient) -> None:
        """φ's step along a gradient with respect to its targets."""
        _, label = self.plain_optimizers()
        slopes: Sequence[TargetGradient] = meta.targets
        if self._recomputes():
            targets = [self._generate(batch) for batch in batches]
        if self.normalize_hypergradient:
            masks = [self.label_network.mask[batch.primary] for batch in batches]
            slopes = normalized(slopes, masks, self.average)
        loss = label_loss(targets, slopes, self.entropy_weight, self.average)
        parameters = [p for p in self.label_network.parameters() if p.requires_grad]
        slope = torch.autograd.grad(loss, parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, slope, strict=True):
            parameter.grad = gradient
        finish_gradients(parameters, self.average, self.label_clip_grad_norm)
        label.step()
        label.zero_grad()
        log_labels(self, targets, self.label_network.weighted, meta.loss)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The main network's optimizer and the label network's, with their schedules."""
        own = {id(parameter) for parameter in self.label_network.parameters()}
        main = make_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad and id(p) not in own])
        label = make_optimizer(self.label_optimizer, list(self.label_network.parameters()), "label_optimizer")
        makes = ((main, self.scheduler, "scheduler"), (label, self.label_scheduler, "label_scheduler"))
        return [main, label], [
            make_scheduler(make, optimizer, name) for optimizer, make, name in makes if make is not None
        ]

    def _recomputes(self) -> bool:
        # Heads on the main network's features hold next to nothing, and a fused step has moved those features.
        return self.recompute_labels and not self.label_network.shared_trunk

    def _generate(self, batch: Batch) -> AuxiliaryTarget:
        with isolated_rng(self.draw_seed("labels", batch)):
            features = None
            if self.label_network.shared_trunk:
                with torch.no_grad(), kept_buffers(self.trunk):
                    features = self.features(batch.image)
            return self.label_network.generate(batch, features)


share_docs(BilevelOptions, BilevelModule, AuxiliaryClassifier)
