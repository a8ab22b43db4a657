"""The progress bar of an agent's epoch."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from stable_baselines3.common.callbacks import BaseCallback
from tqdm.auto import tqdm


class AgentProgress(BaseCallback):
    """Moves by one each vector step, and says when the policy is being updated; silent where the trainer's bar is.

    Args:
        trainer: whose bar it stands below.
        title: whose epoch it is.
        steps: of the epoch.
    """

    def __init__(self, trainer: L.Trainer, title: str, steps: int) -> None:
        super().__init__()
        above = trainer.progress_bar_callback
        visible = isinstance(above, TQDMProgressBar) and above.is_enabled
        self.title = title
        self.bar: Any = tqdm(total=steps, desc=title, leave=False, position=1, dynamic_ncols=True, disable=not visible)

    def _on_rollout_start(self) -> None:
        self.bar.set_description(self.title)

    def _on_rollout_end(self) -> None:
        self.bar.set_description(f"{self.title} learns")

    def _on_step(self) -> bool:
        self.bar.update(1)
        return True
