"""Forward passes of other images than the step's, without a trace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from auxlight.batch import Batch
from auxlight.errors import InputError
from auxlight.networks.buffers import lent_buffers
from auxlight.seeding import isolated_rng
from auxlight.tasks import LabelledTask

if TYPE_CHECKING:
    from auxlight.modules.classifier import AuxiliaryClassifier


def labelled_tasks(module: AuxiliaryClassifier) -> list[LabelledTask]:
    """Those of the module's tasks that have a labeler."""
    return [task for task in module.tasks if isinstance(task, LabelledTask)]


@contextmanager
def aside(module: AuxiliaryClassifier, seed: int) -> Iterator[None]:
    """Inside this block the labelers label, but learn nothing; buffers, random generators and targets are put back."""
    with ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        stack.enter_context(isolated_rng(seed))
        stack.enter_context(lent_buffers(module.modules()))
        for task in labelled_tasks(module):
            stack.enter_context(task.given(None))
            stack.enter_context(task.labeler.at_rest())
            stack.callback(setattr, task, "target", task.target)
        yield


def prepare_labelers(module: AuxiliaryClassifier, begins: bool) -> None:
    """Let the labelers look at more than the batch before a step of a fit.

    Args:
        module: theirs.
        begins: whether it is the first step of a fit that is not resumed.
    """

    def images() -> Iterator[Batch]:
        if module.data is None:
            raise InputError(
                "A labeler that looks at all training images needs an auxlight data module. Found none: subclass "
                "ImageDataModule."
            )
        for batch in module.data.plain_batches("train"):
            if (batch.primary >= 0).any():
                yield batch.select(batch.primary >= 0)

    for task in labelled_tasks(module):
        if begins:
            task.labeler.before_fit()
        task.labeler.before_step(module.current_epoch, module.trainer.max_epochs, module.trunk, images)
