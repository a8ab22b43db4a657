"""A LightningModule in training as the learner of the game."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, cast

import lightning as L
import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.convolutions import ConvolutionOutputs
from auxlight.distributed import alone, mean_over_devices
from auxlight.hypergradient import LookAheadGradient, MetaProblem
from auxlight.labelers.agent import AgentLabels
from auxlight.lookahead import LookAhead, Position, SGDRule
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.modules.joint_losses import JointLosses
from auxlight.tasks import LabelledTask


class Departure(NamedTuple):
    """Where a step starts, and by which rules; `kept` is filled by the step."""

    position: Position
    rules: dict[str, SGDRule]
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
        agents = {id(tensor) for tensor in (*labeler.parameters(), *labeler.buffers())}
        self._tensors = [t for t in (*module.parameters(), *module.buffers()) if id(t) not in agents]
        self._canonical: dict[str, Any] | None = None
        self._begun: tuple[Tensor, Tensor] | None = None
        self._departure: Departure | None = None
        self._steps = 0

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """See `Learner.train_on`."""
        optimizer = self.trainer.optimizers[0]
        strategy = self.trainer.strategy
        features = self._begun[1] if self._begun is not None and self._begun[0] is batch.image else None
        self._begun = None

        def closure() -> Tensor:
            optimizer.zero_grad()
            with (
                self.trainer.precision_plugin.train_step_context(),
                self._task.given(target),
                nullcontext() if features is None else self.module.given_features(batch.image, features),
                nullcontext() if self._departure is None else self._departure.kept.recorded(),
            ):
                loss = self.module.step(batch).loss
            strategy.backward(loss, optimizer)
            with_gradient = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            means = self.average({str(n): cast(Tensor, p.grad) for n, p in enumerate(with_gradient)})
            for parameter, mean in zip(with_gradient, means.values(), strict=True):
                cast(Tensor, parameter.grad).copy_(mean)
            return loss

        strategy.optimizer_step(optimizer, closure, self.module)
        self._steps += 1
        for config in self.trainer.lr_scheduler_configs:
            if config.interval == "step" and not config.reduce_on_plateau and self._steps % config.frequency == 0:
                self.module.lr_scheduler_step(config.scheduler, None)

    @torch.no_grad()
    def primary_loss(self, batch: Batch) -> float:
        """See `Learner.primary_loss`."""
        with evaluation_mode(self.module), self.trainer.precision_plugin.val_step_context():
            return float(self.module.primary_losses(self.module(batch.image), batch).mean())

    def features(self, batch: Batch) -> Tensor:
        """See `FeatureLearner.features`; `train_on` this batch goes on from there."""
        with torch.enable_grad(), self.trainer.precision_plugin.train_step_context():
            features = self.module.features(batch.image)
        self._begun = (batch.image, features)
        return features.detach()

    def position(self) -> Departure:
        """See `InfluenceLearner.position`."""
        network, step = JointLosses(self.module), LookAhead(self.trainer.optimizers[0])
        start = step.start(network)
        parameters = {name: value.clone() for name, value in start.parameters.items()}
        momenta = {name: None if value is None else value.clone() for name, value in start.momenta.items()}
        self._departure = Departure(Position(parameters, momenta), step.rules(network), ConvolutionOutputs(0.45))
        return self._departure

    def influence(self, before: Departure, batch: Batch, target: AuxiliaryTarget, evaluation: Batch) -> Tensor:
        """See `InfluenceLearner.influence`."""
        self._departure = None
        network, step = JointLosses(self.module), LookAhead(self.trainer.optimizers[0])
        problem = MetaProblem(
            network, [batch], [target], [evaluation], step, self.module.aux_weight, self.average, seed=0
        )
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
            "tensors": [tensor.detach().clone() for tensor in self._tensors],
            "optimizers": [copy.deepcopy(optimizer.state_dict()) for optimizer in self.trainer.optimizers],
            "schedulers": [copy.deepcopy(c.scheduler.state_dict()) for c in self.trainer.lr_scheduler_configs],
            "precision": copy.deepcopy(self.trainer.precision_plugin.state_dict()),
        }

    @torch.no_grad()
    def restore(self) -> None:
        """See `Learner.restore`."""
        self._steps = 0
        self._begun = self._departure = None
        if self._canonical is None:
            return
        for tensor, canonical in zip(self._tensors, self._canonical["tensors"], strict=True):
            tensor.copy_(canonical)
        for optimizer, state in zip(self.trainer.optimizers, self._canonical["optimizers"], strict=True):
            optimizer.load_state_dict(copy.deepcopy(state))
            optimizer.zero_grad()
        configs = self.trainer.lr_scheduler_configs
        for config, state in zip(configs, self._canonical["schedulers"], strict=True):
            config.scheduler.load_state_dict(copy.deepcopy(state))
        self.trainer.precision_plugin.load_state_dict(copy.deepcopy(self._canonical["precision"]))


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; afterwards every submodule is in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
