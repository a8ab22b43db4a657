"""A LightningModule in training as the learner of the game."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.convolutions import ConvolutionOutputs
from auxlight.distributed import alone, mean_over_devices
from auxlight.hypergradient import LookAheadGradient, MetaProblem
from auxlight.labelers.agent import AgentLabels
from auxlight.lookahead import LookAhead, Position, SGDRule
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.modules.joint_losses import JointLosses, looks_through
from auxlight.networks.buffers import Slot, evaluation_mode, lent_buffers, put_into_place
from auxlight.seeding import derive_seed, generator_states, global_seed, isolated_rng, set_generators
from auxlight.tasks import AuxiliaryTask, LabelledTask


class Begun(NamedTuple):
    """A step whose trunk has run already: on these images, to these features, buffers and generators' states."""

    image: Tensor
    features: Tensor
    buffers: list[Slot]
    generators: list[Tensor]
    kept: ConvolutionOutputs


class Departure(NamedTuple):
    """Where a step starts, by which rules, with which dropout masks; `kept` is of its forward pass."""

    position: Position
    rules: dict[str, SGDRule]
    seed: int
    kept: ConvolutionOutputs


class ModuleLearner:
    """Takes the step that Lightning takes (precision, clipping, per-step schedules), and can take it all back.

    Each batch is one step. Callbacks' `on_before_optimizer_step` is called, as the gradients are clipped there; no
    other hook is. A plateau schedule waits for the main epoch's validation. On several devices the gradients are
    averaged.

    The canonical state is every parameter and buffer but the agent's, the optimizer, the schedulers and the gradient
    scaler. The generators of random numbers are the caller's affair (`seeding.isolated_rng`).

    Args:
        trainer: in a running fit.
        module: the main network.
        labeler: its agent labeler.
    """

    def __init__(self, trainer: L.Trainer, module: AuxiliaryClassifier, labeler: AgentLabels) -> None:
        self.trainer = trainer
        self.module = module
        self._task = cast(LabelledTask, module.labelled_task)
        agents = {id(part) for part in labeler.modules()}
        self._parts = [part for part in module.modules() if id(part) not in agents]
        # What tasks and combiner remember changes in the step, and not in the trunk's forward pass before it.
        books = {id(part) for owner in (module.tasks, module.combiner) for part in owner.modules()}
        books -= {id(part) for part in module.trunk.modules()}
        self._seeing = [part for part in self._parts if id(part) not in books]
        self._canonical: dict[str, Any] | None = None
        self._begun: Begun | None = None
        self._departure: Departure | None = None
        self._steps = 0
        self._draws = 0
        self._games = int(labeler.epochs_played)

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """See `Learner.train_on`."""
        optimizer = self.trainer.optimizers[0]
        strategy = self.trainer.strategy
        for task in self.module.tasks:
            cast(AuxiliaryTask, task).before_step(self.module.trunk)

        def closure() -> Tensor:
            optimizer.zero_grad()
            with self._stepping(batch), self._task.given(target):
                loss = self.module.step(batch).loss
            strategy.backward(loss, optimizer)
            with_gradient = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            means = self.average({str(n): cast(Tensor, p.grad) for n, p in enumerate(with_gradient)})
            for parameter, mean in zip(with_gradient, means.values(), strict=True):
                cast(Tensor, parameter.grad).copy_(mean)
            return loss

        strategy.optimizer_step(optimizer, closure, self.module)
        self._begun = None
        self._steps += 1
        self._draws += 1
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "step" and not config.reduce_on_plateau and self._steps % config.frequency == 0:
                self.module.lr_scheduler_step(config.scheduler, None)

    @contextmanager
    def _stepping(self, batch: Batch) -> Iterator[None]:
        """Around a step's forward pass: as Lightning takes it, going on from what has begun, watched for influence."""
        begun, departure = self._begun, self._departure
        with ExitStack() as stack:
            stack.enter_context(self.trainer.precision_plugin.train_step_context())
            if departure is not None:
                stack.enter_context(isolated_rng(departure.seed))
            if begun is not None and begun.image is batch.image:
                put_into_place(begun.buffers)
                stack.enter_context(self.module.given_features(begun.image, begun.features))
                if departure is not None:
                    set_generators(begun.generators)
            elif departure is not None and looks_through(self.module):
                stack.enter_context(departure.kept.recorded())
            yield

    @torch.no_grad()
    def primary_loss(self, batch: Batch) -> float:
        """See `Learner.primary_loss`; in full precision, for rewards are differences of it."""
        whole = torch.autocast(self.module.device.type, enabled=False)
        with evaluation_mode(self.module), self.trainer.precision_plugin.val_step_context(), whole:
            return float(self.module.primary_losses(self.module(batch.image), batch).mean())

    def features(self, batch: Batch) -> Tensor:
        """See `FeatureLearner.features`; `train_on` goes on from there, if the module's step is the common one.

        Until then batch norm's statistics stay, so that what is measured before the step is the network before it.
        """
        kept = ConvolutionOutputs(MetaProblem.keep)
        with (
            lent_buffers(self._seeing) as buffers,
            isolated_rng(self._seed()),
            torch.enable_grad(),
            self.trainer.precision_plugin.train_step_context(),
            kept.recorded(),
        ):
            features = self.module.features(batch.image)
            generators = generator_states()
        if looks_through(self.module):
            self._begun = Begun(batch.image, features, buffers, generators, kept)
        return features.detach()

    def position(self) -> Departure:
        """See `InfluenceLearner.position`."""
        network, step = JointLosses(self.module), LookAhead(self.trainer.optimizers[0])
        start = step.start(network)
        parameters = {name: value.clone() for name, value in start.parameters.items()}
        momenta = {name: None if value is None else value.clone() for name, value in start.momenta.items()}
        kept = ConvolutionOutputs(MetaProblem.keep)
        if self._begun is not None:
            kept = self._begun.kept
        self._departure = Departure(Position(parameters, momenta), step.rules(network), self._seed(), kept)
        return self._departure

    def influence(self, before: Departure, batch: Batch, target: AuxiliaryTarget, evaluation: Batch) -> Tensor:
        """See `InfluenceLearner.influence`."""
        self._departure = None
        self._draws += 1
        network, step = JointLosses(self.module), LookAhead(self.trainer.optimizers[0])
        # A device's images are a share of the batch.
        weight = self.module.aux_weight * self._task.weight / self.trainer.world_size
        problem = MetaProblem(network, [batch], [target], [evaluation], step, weight, self.average, before.seed)
        with torch.autocast(self.module.device.type, enabled=False):
            positions = [before.position, step.start(network)]
            (slopes,) = LookAheadGradient().of_steps(problem, before.rules, positions, before.kept).targets
        return -target.weight * slopes.weight

    def average(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean over devices."""
        return (mean_over_devices if self.trainer.world_size > 1 else alone)(tensors)

    def snapshot(self) -> None:
        """See `Learner.snapshot`."""
        self._canonical = {
            "tensors": [
                (slots, name, tensor, None if tensor is None else tensor.detach().clone())
                for part in self._parts
                for slots in (part._parameters, part._buffers)
                for name, tensor in slots.items()
            ],
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self.trainer.optimizers],
            "schedulers": [copy.deepcopy(c.scheduler.state_dict()) for c in self.trainer.lr_scheduler_configs],
            "combiner": copy.deepcopy(self.module.combiner.state_dict()),
            "precision": copy.deepcopy(self.trainer.precision_plugin.state_dict()),
        }

    def amend(self, checkpoint: dict[str, Any]) -> None:
        """Put the canonical state into a checkpoint that Lightning makes in the middle of a game.

        Args:
            checkpoint: before it is written.
        """
        kept = self._canonical
        if kept is None:
            return
        canonical = {(id(slots), name): value for slots, name, _, value in kept["tensors"]}
        state = checkpoint["state_dict"]
        for prefix, part in self.module.named_modules(remove_duplicate=False):
            for slots in (part._parameters, part._buffers):
                for name in slots:
                    key = f"{prefix}.{name}" if prefix else name
                    if key in state and (id(slots), name) in canonical:
                        state[key] = canonical[id(slots), name]
        state.update({f"combiner.{name}": value for name, value in kept["combiner"].items()})
        checkpoint |= {"optimizer_states": kept["optimizers"], "lr_schedulers": kept["schedulers"]}
        if kept["precision"]:
            checkpoint[type(self.trainer.precision_plugin).__qualname__] = kept["precision"]

    @torch.no_grad()
    def restore(self) -> None:
        """See `Learner.restore`."""
        self._steps = 0
        self._begun = self._departure = None
        if self._canonical is None:
            return
        for slots, name, tensor, canonical in self._canonical["tensors"]:
            slots[name] = tensor  # a step may have put another one in its place
            if tensor is not None:
                tensor.copy_(canonical)
        for optimizer, state in zip(self.trainer.optimizers, self._canonical["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
            optimizer.zero_grad()
        self.module.combiner.load_state_dict(copy.deepcopy(self._canonical["combiner"]))
        configs = self.trainer.lr_scheduler_configs
        for config, state in zip(configs, self._canonical["schedulers"], strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(state))
        self.trainer.precision_plugin.load_state_dict(copy.deepcopy(self._canonical["precision"]))

    def forget(self) -> None:
        """Let go of the canonical state, a copy of all weights and of the optimizer on the device."""
        self._canonical = None

    def _seed(self) -> int:
        """Of the next step's dropout masks, where they have to be drawn twice."""
        place = (self.trainer.current_epoch, self.trainer.global_rank, self._games, self._draws)
        return derive_seed(global_seed(), "step of the game", *place)
