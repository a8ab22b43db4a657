"""What a LightningModule's combiner may ask for, answered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from auxlight.batch import Batch
from auxlight.combiners import StepContext, TaskLosses
from auxlight.combiners.base import mean_or_zero
from auxlight.errors import InputError
from auxlight.influence import ForwardMode
from auxlight.modules.aside import aside, labelled_tasks
from auxlight.seeding import isolated_rng

if TYPE_CHECKING:
    from auxlight.modules.classifier import AuxiliaryClassifier


def step_context(module: AuxiliaryClassifier, batch: Batch, seed: int | None = None) -> StepContext:
    """The context of a step.

    Args:
        module: whose trunk the tasks share.
        batch: of the step.
        seed: that the step's random draws came from, where they must be made again.
    """
    shared = [p for p in module.trunk.parameters() if p.requires_grad]
    others = {id(p) for p in (*shared, *module.combiner.parameters())}
    own = [p for p in module.parameters() if p.requires_grad and id(p) not in others]
    # An agent's game trains on labels that it gives. It has streams of its own, so that it leaves the main epoch's.
    plays = any(task.has_given for task in labelled_tasks(module))
    where = "in the game" if plays else "aside"

    def another() -> TaskLosses:
        further = module.next_batch(f"further batch {where}", "train")
        with aside(module, module.draw_seed("further", further)):
            features = module.features(further.image)
            return module.task_losses(features, module.primary_head(features), further)

    def judged() -> Tensor:
        judge = module.next_batch(f"judge {where}", module.combiner.judges_by or "train")
        with aside(module, module.draw_seed("judge", judge)):
            return mean_or_zero(module.known_losses(module(judge.image), judge))

    def derivatives(direction: Sequence[Tensor]) -> list[Tensor]:
        network = _SampleLosses(module)
        names = {id(parameter): name for name, parameter in network.named_parameters()}
        parts = list(zip([*shared, *own], direction, strict=True))
        if any(id(p) not in names and v.any() for p, v in parts):
            raise InputError(
                f"`combiner` {type(module.combiner).__name__} looks along all parameters that train, which must lie in "
                "submodules. Found one that is an attribute of the module itself: wrap it in a torch.nn.ParameterList."
            )
        pairs = [(names[id(p)], p, v) for p, v in parts if id(p) in names]
        theta, along = ({name: p.detach() for name, p, _ in pairs}, {name: v for name, _, v in pairs})
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(module.device.type, enabled=False))
            stack.enter_context(module.computed_features())
            if seed is not None:
                stack.enter_context(isolated_rng(seed))
            for task in labelled_tasks(module):
                stack.enter_context(task.given(task.target))
            tangents = ForwardMode()(network, theta, along, batch)
        return list(torch.split(tangents, network.sizes))

    return StepContext(shared, own, module.average, module.current_epoch, not plays, another, judged, derivatives)


class _SampleLosses(nn.Module):
    """Batch → the losses of every sample of every task, as `auxlight.influence` asks for them: in one row.

    Attributes:
        sizes: how many of them each task has, once they were computed.
    """

    def __init__(self, module: AuxiliaryClassifier) -> None:
        super().__init__()
        for name, part in module.named_children():
            self.add_module(name, part)
        self.sizes: list[int] = []
        self._module = (module,)  # not a submodule: its parts are

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Primary losses (n,), and all tasks' `TaskLosses.samples` (Σ n_m,)."""
        module = self._module[0]
        features = module.features(batch.image)
        losses = module.task_losses(features, module.primary_head(features), batch)
        samples = losses.samples()
        self.sizes = [len(part) for part in samples]
        return losses.primary, torch.cat(samples)
