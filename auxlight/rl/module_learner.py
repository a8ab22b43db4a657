"""A LightningModule in training as the learner of the game."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import lightning as L
import torch
from torch import Tensor, nn

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.labelers.agent import AgentLabels
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.tasks import LabelledTask


class ModuleLearner:
    """Takes the step that Lightning takes (precision, clipping, per-step schedules), and can take it all back.

    Each batch is one step. Callbacks' `on_before_optimizer_step` is called, as the gradients are clipped there; no
    other hook is. A plateau schedule waits for the main epoch's validation.

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
        self._steps = 0

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """See `Learner.train_on`."""
        optimizer = self.trainer.optimizers[0]
        strategy = self.trainer.strategy

        def closure() -> Tensor:
            optimizer.zero_grad()
            with self.trainer.precision_plugin.train_step_context(), self._task.given(target):
                loss = self.module.step(batch).loss
            strategy.backward(loss, optimizer)
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
