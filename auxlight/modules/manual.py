"""What Lightning leaves to a module with manual optimisation of two networks."""

from typing import Any, cast

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from auxlight.errors import InputError
from auxlight.modules.classifier import AuxiliaryClassifier


class TwoOptimizers(AuxiliaryClassifier):
    """A classifier whose `configure_optimizers` returns two optimizers and the schedulers of some."""

    def lightning_optimizers(self) -> tuple[Any, Any]:
        """Lightning's wrappers; a step of the first counts as the trainer's global step."""
        main, label = cast(Any, self.optimizers())
        return main, label

    def plain_optimizers(self) -> tuple[Optimizer, Optimizer]:
        """torch's, whose steps the trainer does not count."""
        main, label = cast(Any, self.optimizers(use_pl_optimizer=False))
        return main, label

    def step_scheduler(self, optimizer: Optimizer) -> None:
        """Step the scheduler of one of the optimizers, if it has one."""
        found = self.lr_schedulers()
        for scheduler in found if isinstance(found, list) else [found]:
            if scheduler is None or cast(Any, scheduler).optimizer is not optimizer:
                continue
            metric = None
            if isinstance(scheduler, ReduceLROnPlateau):
                metric = self.trainer.callback_metrics.get("val/primary_loss")
                if metric is None:
                    raise InputError(
                        "A ReduceLROnPlateau scheduler needs a validation before each of its steps. Found none: "
                        "validate every epoch, or choose another scheduler."
                    )
            self.lr_scheduler_step(scheduler, metric)
