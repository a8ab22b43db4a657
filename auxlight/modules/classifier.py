"""A classifier with auxiliary tasks beside its primary one."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, TypedDict, cast

import lightning as L
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import SGD

from auxlight.batch import Batch
from auxlight.combiners import Combiner, TaskLosses, WeightedSum
from auxlight.combiners.base import mean_or_zero
from auxlight.datamodules.base import ImageDataModule, Split
from auxlight.distributed import alone, mean_over_devices
from auxlight.errors import InputError
from auxlight.functional import focal_loss
from auxlight.hierarchy import LabelHierarchy
from auxlight.hparams import save_plain_hyperparameters
from auxlight.labelers.base import Labeler
from auxlight.modules import checks
from auxlight.modules.aside import prepare_labelers
from auxlight.modules.metrics import StageMetrics
from auxlight.modules.optimizers import make_optimizer, make_scheduler
from auxlight.modules.outputs import Prediction, StepOutputs
from auxlight.modules.step_context import step_context
from auxlight.modules.streams import BatchStreams
from auxlight.networks.heads import Head
from auxlight.option_docs import share_docs
from auxlight.seeding import derive_seed, global_seed, is_seeded, isolated_rng, seed_generators
from auxlight.tasks import AuxiliaryTask, LabelledTask, TaskPlace, task_names

Stage = Literal["train", "val", "test"]


class ClassifierOptions(TypedDict, total=False):
    """What every classifier takes beside its own arguments; `AuxiliaryClassifier` says what each means."""

    head_dim: int | None
    labeler: Labeler | None
    tasks: Sequence[AuxiliaryTask] | None
    combiner: Combiner | None
    aux_weight: float
    focal_gamma: float
    optimizer: OptimizerCallable
    scheduler: LRSchedulerCallable | None
    scheduler_interval: Literal["epoch", "step"]


class AuxiliaryClassifier(L.LightningModule):
    """Primary classification over any trunk, with auxiliary tasks: one whose labels come from a labeler, and others.

    Args:
        hierarchy: block sizes ψ of the primary classes, or the `LabelHierarchy` of a data module.
        trunk: images (B, C, H, W) → features (B, feature_dim).
        feature_dim: size of the features; by default `trunk.feature_dim`.
        head_dim: hidden size of the two-layer heads; the features' size by default.
        labeler: source of the auxiliary labels of the labelled task; None: no such task.
        tasks: further auxiliary tasks, such as `RotationTask`; none by default.
        combiner: how the losses of the tasks become one update; the weighted sum by default.
        aux_weight: λ ≥ 0, a factor on every auxiliary loss.
        focal_gamma: γ ≥ 0 of both losses; 2 is the papers' focal loss, 0 cross-entropy.
        optimizer: parameters → optimizer. The papers' plain SGD at 0.01 by default.
        scheduler: optimizer → learning-rate scheduler; none by default.
        scheduler_interval: step the scheduler each "epoch" or each "step".

    Raises:
        InputError: λ or γ below 0 or not finite, or an unknown feature size.
    """

    trains_labels = False  # a label network, if it has one

    def __init__(
        self,
        hierarchy: LabelHierarchy | Sequence[int],
        trunk: nn.Module,
        *,
        feature_dim: int | None = None,
        head_dim: int | None = None,
        labeler: Labeler | None = None,
        tasks: Sequence[AuxiliaryTask] | None = None,
        combiner: Combiner | None = None,
        aux_weight: float = 1.0,
        focal_gamma: float = 2.0,
        optimizer: OptimizerCallable = lambda params: SGD(params, lr=0.01),
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        save_plain_hyperparameters(self)
        self.hierarchy = LabelHierarchy.of(hierarchy)
        if self.hierarchy.num_primary < 2:
            raise InputError("A classifier needs at least 2 primary classes. Found 1: check the data's labels.")
        for name, value in (("aux_weight", aux_weight), ("focal_gamma", focal_gamma)):
            if not (value >= 0 and math.isfinite(value)):
                raise InputError(f"`{name}` must be a finite number ≥ 0. Found {name}={value}.")
        if scheduler_interval not in ("epoch", "step"):
            raise InputError(f"`scheduler_interval` must be 'epoch' or 'step'. Found {scheduler_interval!r}.")
        for name, size in (("head_dim", head_dim), ("feature_dim", feature_dim)):
            if size is not None and size < 1:
                raise InputError(f"`{name}` must be at least 1. Found {name}={size}.")
        feature_dim = getattr(trunk, "feature_dim", None) if feature_dim is None else feature_dim
        if not isinstance(feature_dim, int):
            raise InputError(
                f"`feature_dim` must be given for a trunk that does not carry it. Found {type(trunk).__name__} "
                "without: set it to the size of the trunk's output."
            )
        self.trunk = trunk
        self.feature_dim = feature_dim
        self.aux_weight = aux_weight
        self.focal_gamma = focal_gamma
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval: Literal["epoch", "step"] = scheduler_interval
        self.primary_head = Head(feature_dim, self.hierarchy.num_primary, head_dim)
        self._given: tuple[Tensor, Tensor] | None = None
        self._streams = BatchStreams()
        checks.check_parts(tasks, combiner)
        own = [] if labeler is None else [LabelledTask(labeler)]
        self.tasks = nn.ModuleList([*own, *(tasks or [])])
        for task in self.tasks:
            cast(AuxiliaryTask, task).bind(TaskPlace(self.hierarchy, trunk, feature_dim, head_dim, focal_gamma))
        self.combiner = combiner or WeightedSum()
        self.combiner.bind(task_names([cast(AuxiliaryTask, task) for task in self.tasks]))
        self.metrics = nn.ModuleDict(
            {f"on_{stage}": StageMetrics(self.hierarchy, f"{stage}/") for stage in ("train", "val", "test")}
        )

    @property
    def data(self) -> ImageDataModule | None:
        """The trainer's data module, if it is one of auxlight's."""
        data = getattr(self._trainer_if_any, "datamodule", None)
        return data if isinstance(data, ImageDataModule) else None

    @property
    def _trainer_if_any(self) -> L.Trainer | None:
        try:
            return self.trainer
        except RuntimeError:  # a module outside of a fit
            return None

    @property
    def labelled_task(self) -> LabelledTask | None:
        """The task behind the labeler, None for the single task."""
        return next((task for task in self.tasks if isinstance(task, LabelledTask)), None)

    def features(self, image: Tensor) -> Tensor:
        """Trunk features (B, feature_dim) of images (B, C, H, W)."""
        if self._given is not None and self._given[0] is image:
            return self._given[1]
        features: Tensor = self.trunk(image)
        if features.shape[1:] != (self.feature_dim,):
            raise InputError(
                f"`feature_dim` must be the size of the trunk's output. Found feature_dim={self.feature_dim} and "
                f"features of shape {tuple(features.shape)}."
            )
        return features

    @contextmanager
    def computed_features(self) -> Iterator[None]:
        """Inside this block features are computed, also of images whose features were given."""
        given, self._given = self._given, None
        try:
            yield
        finally:
            self._given = given

    @contextmanager
    def given_features(self, image: Tensor, features: Tensor) -> Iterator[None]:
        """Inside this block these are the features of these images: a step goes on from them and their graph."""
        self._given = (image, features)
        try:
            yield
        finally:
            self._given = None

    def forward(self, image: Tensor) -> Tensor:
        """Primary logits (B, C) of images (B, channels, H, W)."""
        logits: Tensor = self.primary_head(self.features(image))
        return logits

    def primary_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Primary loss (B,) of logits (B, C) of labelled images."""
        return focal_loss(logits, batch.primary, self.focal_gamma)

    def known_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Primary losses (n,) of those images whose primary label is known."""
        known = batch.primary >= 0
        if not known.all():
            logits, batch = logits[known], batch.select(known)
        losses = self.primary_losses(logits, batch)
        checks.check_primary(losses, len(batch.primary))
        return losses

    def task_losses(self, features: Tensor, logits: Tensor, batch: Batch) -> TaskLosses:
        """Losses of all tasks, per sample."""
        auxiliary: list[tuple[Tensor, Tensor]] = []
        for number, task in enumerate(self.tasks):
            seed = self.draw_seed(f"task {number}", batch) if task.draws else None
            with nullcontext() if seed is None else isolated_rng(seed):
                auxiliary.append(task(self.trunk, features, batch))
            checks.check_losses(auxiliary[-1], type(task).__name__)
        return TaskLosses(
            self.known_losses(logits, batch),
            tuple(losses for losses, _ in auxiliary),
            tuple(
                self.aux_weight * cast(float, task.weight) * weights
                for task, (_, weights) in zip(self.tasks, auxiliary, strict=True)
            ),
        )

    def step(self, batch: Batch) -> StepOutputs:
        """One batch forward, without logs and metrics.

        Override this rather than `training_step`: the steps inside an agent's game take it too.
        """
        seed = self.draw_seed("step", batch) if self.combiner.replays else None
        with nullcontext() if seed is None else isolated_rng(seed):
            features = self.features(batch.image)
            logits = self.primary_head(features)
            losses = self.task_losses(features, logits, batch)
        loss = self.combiner(losses, step_context(self, batch, seed))
        checks.check_scalar(loss)
        return StepOutputs(features, logits, losses, loss)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The step's loss, with logs and metrics."""
        begins = batch_idx % getattr(self._trainer_if_any, "accumulate_grad_batches", 1) == 0  # a step
        for task in self.tasks if begins else ():
            cast(AuxiliaryTask, task).before_step(self.trunk)
        features, logits, losses, loss = self.step(batch)
        means = losses.means().detach()
        logged = {"train/loss": loss, "train/primary_loss": means[0]}
        if self.tasks:
            logged["train/auxiliary_loss"] = means[1:].sum()
        for task, weights in zip(self.tasks, losses.weights, strict=True):
            if task is self.labelled_task:
                mean = mean_or_zero(weights)
                logged |= {"train/weight_mean": mean, "train/weight_std": mean_or_zero((weights - mean) ** 2).sqrt()}
        if len(self.tasks) > 1:
            names = self.combiner.names[1:]
            logged |= {f"train/{name}_loss": mean for name, mean in zip(names, means[1:], strict=True)}
        logged |= {f"combiner/{name}": value for name, value in self.combiner.report.items()}
        self.log_dict(logged, on_step=False, on_epoch=True, batch_size=len(batch.primary), sync_dist=True)
        self._update_metrics("train", features, logits, batch)
        return loss

    def on_fit_start(self) -> None:
        """Check what the data must be, and what labelers and combiner need."""
        checks.check_data(self.hierarchy, self.labelled_task is not None, self.data)
        checks.check_labelers(self.tasks, self.trains_labels)
        checks.check_combiner(self.combiner, self.trainer, self.data)
        self._streams = BatchStreams()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """What draws by chance in an epoch (dropout) draws the same in a resumed run; labelers may look at more."""
        if batch_idx == 0 and is_seeded():
            seed_generators(derive_seed(global_seed(), "epoch", self.current_epoch))
        prepare_labelers(self, begins=batch_idx == self.trainer.global_step == 0)

    def next_batch(self, stream: str, split: Split) -> Batch:
        """The next batch of a stream beside the training loop; see `BatchStreams`."""
        if self.data is None:
            raise InputError(
                f"{type(self).__name__} draws images beside the training loop and needs an auxlight data module. "
                "Found none: subclass ImageDataModule."
            )
        return self._streams.next(self.data, stream, split, self.current_epoch)

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over devices."""
        trainer = self._trainer_if_any
        return (mean_over_devices if trainer is not None and trainer.world_size > 1 else alone)(tensors)

    def draw_seed(self, stream: str, batch: Batch) -> int:
        """Of draws that belong to a batch and must be made twice."""
        if not isinstance(getattr(batch, "index", None), Tensor):
            raise InputError(
                f"{type(self).__name__} needs each image's position in the data set, `index` of an auxlight Batch. "
                f"Found a {type(batch).__name__} without: fill it, or use an ImageDataModule."
            )
        # The last image: of a partly labelled batch the first one comes more than once an epoch.
        return derive_seed(global_seed(), stream, self.current_epoch, int(batch.index[-1]))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Primary loss and metrics of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Primary loss and metrics of a test batch."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Prediction:
        """Primary class and class probabilities of each image."""
        probabilities = self(batch.image).softmax(-1)
        return Prediction(batch.index, probabilities.argmax(-1), probabilities)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say of which classes it is."""
        checkpoint["classes"] = checks.classes_of(self.hierarchy, self.data)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse one of others."""
        checks.check_classes(checkpoint.get("classes"), self.hierarchy, self.data)

    def _evaluate(self, stage: Stage, batch: Batch) -> None:
        features = self.features(batch.image)
        logits = self.primary_head(features)
        loss = self.primary_losses(logits, batch).mean()
        logged = {f"{stage}/primary_loss": loss}
        for task, name in zip(self.tasks, self.combiner.names[1:], strict=True):
            found = cast(AuxiliaryTask, task).evaluate(features, batch)
            logged |= {f"{stage}/{name}_{quantity}": value for quantity, value in found.items()}
        self.log_dict(logged, batch_size=len(batch.primary), sync_dist=True)
        self._update_metrics(stage, features, logits, batch)

    def _update_metrics(self, stage: Stage, features: Tensor, logits: Tensor, batch: Batch) -> None:
        known = batch.primary >= 0
        if not known.all():
            features, logits, batch = features[known], logits[known], batch.select(known)
        metrics = cast(StageMetrics, self.metrics[f"on_{stage}"])
        metrics.primary.update(logits.detach(), batch.primary)
        self.log_dict(metrics.primary, on_step=False, on_epoch=True)
        task = self.labelled_task
        if task is not None and batch.auxiliary is not None:
            metrics.auxiliary.update(task.head(features).detach(), batch.auxiliary)
            self.log_dict(metrics.auxiliary, on_step=False, on_epoch=True)

    def lr_scheduler_step(self, scheduler: Any, metric: Any | None) -> None:
        """Lightning's; torch finds some wrong arguments only here."""
        try:
            super().lr_scheduler_step(scheduler, metric)
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(f"`scheduler` cannot take its step: {error}.") from error

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over every parameter that trains in the main phase."""
        optimizer = make_optimizer(self.optimizer, [p for p in self.parameters() if p.requires_grad])
        if self.scheduler is None:
            return optimizer
        scheduler = make_scheduler(self.scheduler, optimizer)
        # The monitor is read by ReduceLROnPlateau alone.
        config = {"scheduler": scheduler, "interval": self.scheduler_interval, "monitor": "val/primary_loss"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": config})


share_docs(ClassifierOptions, AuxiliaryClassifier)
