"""Where Lightning and the agent meet."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Any, cast

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from tqdm.auto import tqdm

from auxlight.batch import Batch
from auxlight.datamodules.base import ImageDataModule
from auxlight.errors import InputError
from auxlight.labelers.agent import AgentLabels
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.rl.agent import AgentFactory, PaperPPO, Player
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.policy import AgentPolicy
from auxlight.rl.rewards import BatchReward, Reward
from auxlight.rl.vec_env import AuxTaskVecEnv
from auxlight.seeding import derive_seed, global_seed, isolated_rng


class RLAuxCallback(L.Callback):
    """Before each epoch of the main network, its agent plays one of its own (RL-AUX).

    At the start of a training epoch the canonical network is remembered; the agent labels batch after batch, the
    network really trains on them, and the agent learns from the reward; then network, optimizer, schedules and random
    generators are put back, bit for bit, and Lightning trains the network for one epoch with the agent as labeler.
    The agent's images and augmentations are a stream of their own, and so are the reward's.

    Logs once an epoch, under ``agent/``: the mean reward, and what the algorithm reports (losses, KL, entropy,
    explained variance).

    Args:
        agent: (policy, environment) → an on-policy algorithm of Stable-Baselines3; RL-AUX's PPO by default.
        reward: what the agent is rewarded for; RL-AUX's `BatchReward` by default.

    Raises:
        InputError: at the start of the fit, for a module without `AgentLabels` or with manual optimisation, without
            an auxlight data module, beside another RLAuxCallback, with accumulated gradients, or on several devices.
    """

    def __init__(self, agent: AgentFactory = PaperPPO, reward: Reward | None = None) -> None:
        self.agent = agent
        self.reward = reward or BatchReward()
        self._player: Player | None = None
        self._saved: dict[str, Any] | None = None
        self._epoch_played = -1

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's state comes after this."""
        if stage == "fit":
            self._player, self._saved, self._epoch_played = None, None, -1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check what the game needs."""
        task = pl_module.labelled_task if isinstance(pl_module, AuxiliaryClassifier) else None
        if task is None or not isinstance(task.labeler, AgentLabels) or not pl_module.automatic_optimization:
            found = type(pl_module).__name__ if task is None else f"labeler {type(task.labeler).__name__}"
            raise InputError(
                "RLAuxCallback needs an AuxiliaryClassifier with automatic optimisation and the labeler AgentLabels. "
                f"Found {found}: set `labeler: auxlight.AgentLabels`, or remove the callback."
            )
        datamodule = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, ImageDataModule):
            raise InputError(
                "RLAuxCallback draws images beside the training loop and needs an auxlight data module. "
                f"Found {type(datamodule).__name__}: subclass auxlight.datamodules.ImageDataModule."
            )
        if sum(isinstance(callback, RLAuxCallback) for callback in cast(Any, trainer).callbacks) > 1:
            raise InputError("One RLAuxCallback plays all of a module's agent epochs. Found several: keep one.")
        if trainer.accumulate_grad_batches != 1:
            raise InputError(
                "RLAuxCallback takes one step of the main network per batch. Found "
                f"accumulate_grad_batches={trainer.accumulate_grad_batches}: raise `batch_size` instead."
            )
        if trainer.precision in ("64-true", "bf16-true", "16-true"):
            raise InputError(
                f"RLAuxCallback's agent computes in float32. Found precision={trainer.precision}: set "
                "`trainer.precision` to 32 or bf16-mixed."
            )
        if trainer.world_size > 1:
            raise InputError(
                f"RLAuxCallback runs on one device for now. Found {trainer.world_size}: set `trainer.devices: 1`."
            )

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The agent's epoch."""
        self._play(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The agent's epoch, where Lightning left out `on_train_epoch_start` (resumed at the end of an epoch)."""
        if batch_idx == 0 and self._epoch_played != trainer.current_epoch:
            self._play(trainer, pl_module)

    def _play(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module = cast(AuxiliaryClassifier, pl_module)  # on_fit_start has checked the types
        labeler = cast(AgentLabels, cast(Any, module.labelled_task).labeler)
        datamodule = cast(ImageDataModule, cast(Any, trainer).datamodule)
        steps = int(trainer.num_training_batches)  # as many as the main epoch, `limit_train_batches` included
        learner = ModuleLearner(trainer, module, labeler)
        env = AuxTaskVecEnv(
            learner,
            lambda: islice(datamodule.training_batches("agent", trainer.current_epoch), steps),
            self._evaluation(trainer, datamodule),
            labeler.actions,
            self.reward,
            datamodule.batch_size,
            datamodule.image_shape,
        )
        progress_bar = trainer.progress_bar_callback
        bar = tqdm(
            total=steps,
            desc=f"Epoch {trainer.current_epoch} · agent",
            leave=False,
            position=1,
            dynamic_ncols=True,
            disable=not (isinstance(progress_bar, TQDMProgressBar) and progress_bar.is_enabled),
        )
        player = self._player = self._player or self._make_player(labeler, env, module.device)
        learner.snapshot()
        labeler.network.requires_grad_(True)
        with isolated_rng(derive_seed(global_seed(), "agent", trainer.current_epoch)), bar:
            try:
                report = player.play(env, steps, _Progress(bar))
            finally:
                learner.restore()
                labeler.network.requires_grad_(False)
                labeler.network.zero_grad()
        labeler.epochs_played += 1
        self._epoch_played = trainer.current_epoch
        module.log_dict(
            {"agent/reward": env.mean_reward} | {f"agent/{key}": value for key, value in report.items()},
            on_step=False,
            on_epoch=True,
        )

    def _make_player(self, labeler: AgentLabels, env: AuxTaskVecEnv, device: Any) -> Player:
        with isolated_rng(derive_seed(global_seed(), "make agent")):  # making a policy draws layers that it then drops
            try:
                agent = cast(Any, self.agent)(AgentPolicy.around(labeler.network), env, device=device)
            except (ValueError, AssertionError) as error:  # how SB3 and torch refuse a value
                raise InputError(f"`agent` does not take its arguments: {' '.join(str(error).split())}") from error
        if not isinstance(agent, OnPolicyAlgorithm):
            raise InputError(
                "`agent` of RLAuxCallback must make an on-policy algorithm of Stable-Baselines3 (PPO, A2C, …). "
                f"Found {type(agent).__name__}."
            )
        player = Player(agent)
        if self._saved is not None:
            player.load_state_dict(self._saved)
            self._saved = None
        return player

    def _evaluation(self, trainer: L.Trainer, datamodule: ImageDataModule) -> Iterator[Batch]:
        """Random training images for the reward, endlessly."""
        stream = f"reward {trainer.current_epoch}"
        for passes in count():
            yield from datamodule.training_batches(stream, passes, self.reward.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """The agent's optimizer and counters; its network belongs to the module."""
        player = self._saved if self._player is None else self._player.state_dict()
        return {"player": player, "epoch_played": self._epoch_played}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state as soon as the agent exists."""
        self._saved = state_dict["player"]
        self._epoch_played = state_dict["epoch_played"]


class _Progress(BaseCallback):
    """Moves a progress bar by one each vector step, and says when the policy is being updated."""

    def __init__(self, bar: Any) -> None:
        super().__init__()
        self.bar = bar
        self.title = str(bar.desc) if not bar.disable else ""

    def _on_rollout_start(self) -> None:
        self.bar.set_description(self.title)

    def _on_rollout_end(self) -> None:
        self.bar.set_description(f"{self.title} learns")

    def _on_step(self) -> bool:
        self.bar.update(1)
        return True
