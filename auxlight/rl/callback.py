"""Where Lightning and the agent meet."""

import copy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, cast

import lightning as L
import torch
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from torch import Tensor

from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.errors import InputError
from auxlight.labelers.agent import AgentLabels
from auxlight.modules.classifier import AuxiliaryClassifier
from auxlight.rl.agent import AgentFactory, PaperPPO
from auxlight.rl.checks import (
    check_agent,
    check_data,
    check_discount,
    check_module,
    check_optimizers,
    check_reward,
    check_step,
    check_trainer,
)
from auxlight.rl.game import LabellingGame, check_reset
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.online import OnlineGame
from auxlight.rl.parts import evaluation_batches, make_agent, observation_of
from auxlight.rl.player import Player
from auxlight.rl.progress import AgentProgress
from auxlight.rl.rewards import BatchReward, Reward
from auxlight.rl.tally import Tally
from auxlight.rl.vec_env import AuxTaskVecEnv
from auxlight.rl.zips import export_agent, import_agent
from auxlight.seeding import derive_seed, global_seed, isolated_rng


class RLAuxCallback(L.Callback):
    """Before each epoch of the main network, its agent plays one of its own (RL-AUX).

    At the start of a training epoch the canonical network is remembered; the agent labels batch after batch, the
    network really trains on them, and the agent learns from the reward; then network, optimizer, schedules and random
    generators are put back, bit for bit, and Lightning trains the network for one epoch with the agent as labeler.
    The agent's images and augmentations are a stream of their own, and so are the reward's. On several devices each
    plays on images of its own, and the gradients of network and agent are averaged.

    Logs once an epoch, under ``agent/``: the mean reward, what the algorithm reports (losses, KL, entropy, explained
    variance), the share of labels inside their block, their entropy, the weights; and to TensorBoard histograms of
    each class's labels and of the weights.

    Args:
        agent: (policy, environment) → an on-policy algorithm of Stable-Baselines3; RL-AUX's PPO by default.
        reward: what the agent is rewarded for; RL-AUX's `BatchReward` by default.
        reset: see `LabellingGame`; the paper: "epoch".
        every_n_epochs: the agent plays before every n-th epoch of the main network; the paper: before each.
        epoch_fraction: of the main epoch's batches, the share that the agent plays; the paper: all. Online, the share
            that it explores; the others it labels as well as it can.
        pretrain_epochs: further epochs that the agent plays before the main network's first; the paper: none.
        online: no epochs of the agent's own, and nothing to put back: it labels the main network's batches by chance,
            is rewarded for them, and learns in between. A fraction of the paper's cost; the main network trains on
            explored labels.
        start_from: an agent that `export_agent` wrote, to begin with; not read by a resumed run.

    Raises:
        InputError: values out of range or that exclude each other; at the start of the fit, for a module without
            `AgentLabels` or with manual optimisation, without an auxlight data module, beside another RLAuxCallback,
            with accumulated gradients, or without the images that the reward asks for.
    """

    def __init__(
        self,
        agent: AgentFactory = PaperPPO,
        reward: Reward | None = None,
        reset: Literal["epoch", "batch"] = "epoch",
        every_n_epochs: int = 1,
        epoch_fraction: float = 1.0,
        pretrain_epochs: int = 0,
        online: bool = False,
        start_from: str | Path | None = None,
    ) -> None:
        for name, value, least in (("every_n_epochs", every_n_epochs, 1), ("pretrain_epochs", pretrain_epochs, 0)):
            if value < least:
                raise InputError(f"`{name}` must be at least {least}. Found {name}={value}.")
        if not 0 < epoch_fraction <= 1:
            raise InputError(
                f"`epoch_fraction` must lie above 0, and at 1 at most. Found epoch_fraction={epoch_fraction}."
            )
        check_reset(reset)
        check_agent(agent)
        if not (reward is None or (isinstance(reward, Reward) and hasattr(reward, "held_out"))):
            raise InputError(
                f"`reward` must be an auxlight.rl.Reward, whose `__init__` has run. Found {type(reward).__name__}."
            )
        if online and reset == "batch":
            raise InputError(
                "Of an online agent no step is taken back. Found online=True and reset='batch': leave `reset` out."
            )
        self.agent = agent
        self.reward = reward or BatchReward()
        self.reset = reset
        self.every_n_epochs = every_n_epochs
        self.epoch_fraction = epoch_fraction
        self.pretrain_epochs = pretrain_epochs
        self.online = online
        self.start_from = start_from
        self._forget()

    def _forget(self) -> None:
        self._player: Player | None = None
        self._saved: dict[str, Any] | None = None
        self._epoch_played = -1
        self._pretrained = False
        self._game: OnlineGame | None = None
        self._tally: Tally | None = None
        self._played: Tally | None = None
        self._batches = 0
        self._resumed = False
        self._before: dict[str, Any] | None = None
        self._learner: ModuleLearner | None = None

    @property
    def player(self) -> OnPolicyAlgorithm | None:
        """The agent, from its first epoch on."""
        return None if self._player is None else self._player.agent

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Forget an earlier fit; a checkpoint's state comes after this."""
        if stage == "fit":
            self._forget()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check what the game needs."""
        module, labeler = check_module(pl_module)
        check_trainer(trainer, RLAuxCallback)
        check_data(trainer, self.reward, module)
        check_reward(self.reward, module)
        if not self.online:
            check_step(module)
        if self.start_from is not None and not self._resumed:
            import_agent(labeler.network, self.start_from)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Check the optimizers, which are there now."""
        check_optimizers(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The agent's epoch, or the beginning of an online one."""
        self._begin_epoch(trainer, pl_module)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """An online agent's step begins.

        Where Lightning left out `on_train_epoch_start` (resumed at the end of an epoch), the agent plays now.
        """
        module, labeler = check_module(pl_module)
        if batch_idx == 0 and self._epoch_played != trainer.current_epoch:
            self._begin_epoch(trainer, pl_module)
        elif self.online and self._game is None and self._plays(trainer):  # resumed inside an epoch
            self._batches = self._batches_of_epoch(trainer, batch_idx)
            self._begin_online(trainer, module, labeler, batch_idx)
        if self._game is None:
            return
        if not self._explores(batch_idx):
            self._game.skip_step()
            return
        self._game.before_step()
        labeler.explorer = partial(self._explore, trainer, self._game)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """An online agent is rewarded, and learns."""
        module, labeler = check_module(pl_module)
        labeler.explorer = None
        if self._game is None or self._player is None or self._tally is None or not self._explores(batch_idx):
            return
        with isolated_rng(self._seed(trainer, "learn", batch_idx)):
            self._tally.add(self._game.after_step(batch))
        if self._game.is_over:
            self._game = None
            self._log(trainer, module, self._tally, self._player.report())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Histograms, at the step of the epoch's other figures."""
        if self._played is not None and trainer.is_global_zero:
            for logger in trainer.loggers:
                self._played.write_histograms(logger, trainer.global_step - 1)
        self._played = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """One that is written while the agent plays (on a cluster's signal) is of the moment before: it plays anew."""
        if self._before is None:
            return
        _, labeler = check_module(pl_module)
        name = next(name for name, part in pl_module.named_modules() if part is labeler)
        if self._learner is not None:
            self._learner.amend(checkpoint)
        checkpoint["state_dict"] |= {f"{name}.{key}": value for key, value in self._before["labeler"].items()}
        checkpoint["callbacks"][self.state_key] = self._before["callback"]
        # Lightning still counts the last epoch's batches here, all of them, and would take this epoch for trained.
        batches = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        batches |= {"current": dict.fromkeys(batches["current"], 0), "is_last_batch": False}

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """No exploration outside of a fit."""
        labeler = getattr(getattr(pl_module, "labelled_task", None), "labeler", None)
        if isinstance(labeler, AgentLabels):
            labeler.explorer = None
        self._game = None

    def _begin_epoch(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        module, labeler = check_module(pl_module)
        epoch = trainer.current_epoch
        self._batches = self._batches_of_epoch(trainer)
        pretraining = range(self.pretrain_epochs if epoch == 0 and not self._pretrained else 0)
        if pretraining or (self._plays(trainer) and not self.online):
            agent = {name: value.clone() for name, value in labeler.state_dict().items()}
            self._before = {"labeler": agent, "callback": copy.deepcopy(self.state_dict())}
        for number in pretraining:
            self._play(trainer, module, labeler, f"pretraining {number}")
        self._pretrained = self._pretrained or epoch == 0
        if self._plays(trainer):
            if self.online:
                self._begin_online(trainer, module, labeler)
            else:
                self._play(trainer, module, labeler, str(epoch))
        self._epoch_played = epoch
        self._before = None

    def _play(self, trainer: L.Trainer, module: AuxiliaryClassifier, labeler: AgentLabels, name: str) -> None:
        data = cast(Any, trainer).datamodule
        steps = self._steps()
        learner, tally = ModuleLearner(trainer, module, labeler), Tally(labeler.actions)
        game = LabellingGame(
            learner,
            lambda: islice(data.training_batches(f"agent {name}", 0), steps),
            evaluation_batches(data, self.reward, name),
            labeler.actions,
            self.reward,
            self.reset,
            watch=tally.add,
        )
        env = AuxTaskVecEnv(game, observation_of(data, labeler), data.batch_size)
        player = self._player = self._player or self._make_player(trainer, labeler, env, module.device)
        progress = AgentProgress(trainer, f"Epoch {name} · agent", steps)
        learner.snapshot()
        self._learner = learner
        labeler.before_play(module.trunk)
        with isolated_rng(self._seed(trainer, name)), progress.bar, labeler.network.learns():
            try:
                report = player.play(env, steps, progress)
            finally:
                learner.restore()
                learner.forget()  # the agent's environment still holds the learner
                self._learner = None
        labeler.epochs_played += 1
        if name == str(trainer.current_epoch):
            self._log(trainer, module, tally, report)
        elif trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(tally.scalars(), int(labeler.epochs_played))

    def _begin_online(
        self, trainer: L.Trainer, module: AuxiliaryClassifier, labeler: AgentLabels, first: int = 0
    ) -> None:
        steps = sum(self._explores(batch_idx) for batch_idx in range(first, self._batches))
        if not steps:
            return
        data = cast(Any, trainer).datamodule
        learner, observation = ModuleLearner(trainer, module, labeler), observation_of(data, labeler)
        if self._player is None:  # its environment only tells it the shapes
            shapes = LabellingGame(learner, tuple, iter(()), labeler.actions, self.reward)
            env = AuxTaskVecEnv(shapes, observation, data.batch_size)
            self._player = self._make_player(trainer, labeler, env, module.device)
        evaluation = evaluation_batches(data, self.reward, str(trainer.current_epoch))
        game = OnlineGame(self._player, learner, evaluation, labeler.actions, self.reward, observation, steps)
        self._game, self._tally = game, Tally(labeler.actions)
        if not first:
            labeler.before_play(module.trunk)
            labeler.epochs_played += 1

    def _explore(self, trainer: L.Trainer, game: OnlineGame, batch: Batch, seen: Tensor) -> AuxiliaryTarget:
        with isolated_rng(self._seed(trainer, "explore", int(batch.index[0]))):
            return game.choose(batch, seen)

    def _batches_of_epoch(self, trainer: L.Trainer, begun: int = 0) -> int:
        """The main network's, of which some have begun; `limit_train_batches` and `max_steps` are honoured."""
        batches = int(trainer.num_training_batches)
        return batches if trainer.max_steps < 0 else min(batches, trainer.max_steps - trainer.global_step + begun)

    def _steps(self) -> int:
        """Of the agent's epoch."""
        return max(1, round(self.epoch_fraction * self._batches))

    def _plays(self, trainer: L.Trainer) -> bool:
        """Whether this is one of the agent's epochs."""
        return trainer.current_epoch % self.every_n_epochs == 0

    def _explores(self, batch_idx: int) -> bool:
        """Whether this is one of the agent's steps, which lie evenly among the main network's."""
        steps = self._steps()
        return batch_idx * steps % self._batches < steps

    def _seed(self, trainer: L.Trainer, *coordinates: int | str) -> int:
        return derive_seed(global_seed(), "agent", trainer.current_epoch, trainer.global_rank, *coordinates)

    def _log(self, trainer: L.Trainer, module: AuxiliaryClassifier, tally: Tally, report: dict[str, float]) -> None:
        scalars = tally.scalars() | {f"agent/{key}": value for key, value in report.items()}
        extremes = {f"agent/weight_{name}": (scalars.pop(f"agent/weight_{name}"), name) for name in ("min", "max")}
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "sync_dist": True, "batch_size": 1}
        module.log_dict(scalars, **options)
        for key, (value, reduction) in extremes.items():
            module.log(key, value, reduce_fx=reduction, **options)
        self._played = tally

    def _make_player(
        self, trainer: L.Trainer, labeler: AgentLabels, env: AuxTaskVecEnv, device: torch.device
    ) -> Player:
        agent = make_agent(self.agent, labeler, env, device)
        check_discount(agent, self.reward)
        player = Player(agent, trainer.world_size)
        if self._saved is not None:
            player.load_state_dict(self._saved)
            self._saved = None
        return player

    def export_agent(self, path: str | Path) -> None:
        """Write the agent as a zip of Stable-Baselines3, for `PPO.load` and its kin elsewhere."""
        if self.player is None:
            raise InputError("An agent can be exported once it has played. Found none: fit first.")
        export_agent(self.player, path)

    def state_dict(self) -> dict[str, Any]:
        """The agent's optimizer and counters; its network belongs to the module."""
        player = self._saved if self._player is None else self._player.state_dict()
        return {"player": player, "epoch_played": self._epoch_played, "pretrained": self._pretrained}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state as soon as the agent exists."""
        self._resumed = True
        self._saved = state_dict["player"]
        self._epoch_played = state_dict["epoch_played"]
        self._pretrained = state_dict["pretrained"]
