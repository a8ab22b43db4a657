"""What RL-AUX costs: rollouts one image a step against whole batches, and epochs of each method in single-task ones.

    python benchmarks/agent_epoch.py [--quick] [--width W] [--root DIR]

Real CIFAR-100 from a mirror in DIR, or the embedded digits; VGG16 in batches of 100. A rollout is SB3's own (no update
of the policy) over some batches of the game, by `AuxTaskEnv`, an image a step, and by `AuxTaskVecEnv`: once with a main
network that does nothing, and once with its steps and the reward's, which cost both the same. Epochs are real ones by
the Trainer with the agent's before them, in turn with single-task epochs, and validation on a tenth as many images. Of
an agent epoch, all that is not a forward or backward pass, a step of an optimizer or SB3's update of the policy is
overhead.

`wa_rl_shared` plays 40 % and `wa_rl_online` explores on 30 % of an epoch's batches, as in configs/; `…_whole` are the
same with all of them.

Targets: the batch-parallel rollout (beside an idle main network) at least 5 times as fast; overhead at most 10 % of
the agent epoch; `wa_rl_shared` at most 3.2 and `wa_rl_online` at most 2 single-task epochs (the RL-AUX authors' code:
15.9).
"""

import argparse
import itertools
import logging
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from common import header, interleaved, report
from torch.optim import SGD

from auxlight import (
    AgentLabels,
    BatchReward,
    CIFAR100SuperclassDataModule,
    DigitsDataModule,
    ImageDataModule,
    ImprovementReward,
    InfluenceReward,
    MultiHeadVGG,
    RLAuxCallback,
)
from auxlight.rl import AuxTaskEnv, AuxTaskVecEnv, ImageObservation, LabellingGame, Learner, PaperPPO
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.player import Player
from auxlight.rl.policy import AgentPolicy

QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}


def shared_agent(share: float, online: bool) -> RLAuxCallback:
    """Of `wa_rl_shared.yaml` and `wa_rl_online.yaml`."""
    agent = partial(PaperPPO, gamma=0.0)
    return RLAuxCallback(agent, InfluenceReward(batch_size=100), epoch_fraction=share, online=online)


SHARED = {"weighted": True, "block_relative": True, "shared_trunk": True, "sees_primary": True}
Method = tuple[dict[str, Any] | None, Callable[[], RLAuxCallback] | None]
# As in the configs: arguments of the labeler, and the callback.
METHODS: dict[str, Method] = {
    "single": (None, None),
    "rl": ({}, lambda: RLAuxCallback(reward=BatchReward())),
    "wa_rl": ({"weighted": True}, lambda: RLAuxCallback(reward=BatchReward())),
    "wa_rl_improvement": (
        {"weighted": True, "block_relative": True},
        lambda: RLAuxCallback(partial(PaperPPO, gamma=0.0), ImprovementReward()),
    ),
    "wa_rl_influence": (
        {"weighted": True, "block_relative": True},
        lambda: RLAuxCallback(partial(PaperPPO, gamma=0.0), InfluenceReward()),
    ),
    "wa_rl_shared": (SHARED, partial(shared_agent, 0.4, online=False)),
    "wa_rl_shared_whole": (SHARED, partial(shared_agent, 1.0, online=False)),
    "wa_rl_online": (SHARED, partial(shared_agent, 0.3, online=True)),
    "wa_rl_online_whole": (SHARED, partial(shared_agent, 1.0, online=True)),
}


def make_data(root: Path | None, images: int) -> ImageDataModule:
    """Batches of 100."""
    size = {"num_train": images, "batch_size": 100}
    return DigitsDataModule(**size) if root is None else CIFAR100SuperclassDataModule(str(root), **size)  # type: ignore[arg-type]


def make_module(data: ImageDataModule, width: float, labeler: dict[str, Any] | None) -> MultiHeadVGG:
    """VGG16."""
    torch.manual_seed(0)
    labels = None if labeler is None else AgentLabels(**labeler)
    return MultiHeadVGG(data.hierarchy, width=width, labeler=labels, optimizer=partial(SGD, lr=0.05))


class EpochClock(L.Callback):
    """Seconds of each epoch, the agent's and validation included; stands before the agent's callback."""

    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """An epoch begins."""
        self.marks.append(time.perf_counter())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The last one ends."""
        self.marks.append(time.perf_counter())


def epoch_seconds(data: ImageDataModule, width: float, method: str) -> float:
    """Of a method's second epoch."""
    labeler, callback = METHODS[method]
    clock = EpochClock()
    callbacks: list[L.Callback] = [clock, *([callback()] if callback else [])]
    validation = {"limit_val_batches": max(1, (data.num_train or 0) // 1000)}
    L.Trainer(max_epochs=2, callbacks=callbacks, **QUIET, **validation).fit(make_module(data, width, labeler), data)
    return clock.marks[2] - clock.marks[1]


class Spent:
    """Seconds in functions that are watched, the outermost alone."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    @contextmanager
    def watching(self, *functions: tuple[Any, str]) -> Iterator[None]:
        """Inside this block these attributes' time counts."""
        kept = [(owner, name, getattr(owner, name)) for owner, name in functions]
        for owner, name, function in kept:
            setattr(owner, name, partial(self._timed, function))
        try:
            yield
        finally:
            for owner, name, function in kept:
                setattr(owner, name, function)

    def _timed(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self._depth += 1
        start = time.perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            self._depth -= 1
            if not self._depth:
                self.seconds += time.perf_counter() - start


class InFit(L.Callback):
    """Runs a measurement inside a fit, before its first step."""

    def __init__(self, measure: Callable[[L.Trainer, MultiHeadVGG], dict[str, float]]) -> None:
        self.measure = measure
        self.result: dict[str, float] = {}

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure."""
        self.result = self.measure(trainer, pl_module)
        trainer.should_stop = True


def make_agent(game: LabellingGame, shape: tuple[int, ...], labeler: AgentLabels, parallel: bool) -> Any:
    """The paper's agent over either view."""
    observation = ImageObservation(shape)
    env: Any = AuxTaskVecEnv(game, observation, 100) if parallel else AuxTaskEnv(game, observation)
    minibatch = {} if parallel else {"n_steps": 100, "batch_size": 100}
    return PaperPPO(AgentPolicy.around(labeler.network), env, device="cpu", **minibatch)


class Idle:
    """A learner that does nothing: what is left of a rollout is the agent's and the game's."""

    def train_on(self, *_: Any) -> None:
        """See `Learner.train_on`."""

    def primary_loss(self, *_: Any) -> float:
        """See `Learner.primary_loss`."""
        return 0.0

    def restore(self) -> None:
        """See `Learner.restore`."""

    snapshot = restore


def rollouts(batches: int, rounds: int) -> Callable[[L.Trainer, MultiHeadVGG], dict[str, float]]:
    """Seconds of SB3's rollouts over so many batches, by both views."""

    def measure(trainer: L.Trainer, module: MultiHeadVGG) -> dict[str, float]:
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        labeler: AgentLabels = module.labelled_task.labeler  # type: ignore[union-attr,assignment]
        network = ModuleLearner(trainer, module, labeler)
        network.snapshot()

        def roll(learner: Learner, parallel: bool) -> Callable[[], None]:
            evaluation = itertools.cycle(itertools.islice(data.training_batches("reward", 0, 256), 1))
            episode = partial(data.training_batches, "agent", 0)
            game = LabellingGame(learner, episode, evaluation, labeler.actions, BatchReward())
            agent = make_agent(game, data.image_shape, labeler, parallel)
            agent.train = lambda: None
            steps = batches if parallel else 100
            agent.n_steps = agent.rollout_buffer.buffer_size = steps
            agent.rollout_buffer.reset()
            Player(agent)

            def run() -> None:
                agent.set_env(agent.env)
                agent.learn(100 * batches)

            return run

        sides = {
            "parallel": roll(Idle(), True),
            "single_image": roll(Idle(), False),
            "parallel_with_steps": roll(network, True),
            "single_image_with_steps": roll(network, False),
        }
        return interleaved(sides, rounds)

    return measure


def overhead(trainer: L.Trainer, module: MultiHeadVGG) -> dict[str, float]:
    """Seconds of an agent epoch, and of them in networks, optimizers and SB3's update."""
    labeler: AgentLabels = module.labelled_task.labeler  # type: ignore[union-attr,assignment]
    callback, spent = RLAuxCallback(), Spent()
    callback._play(trainer, module, labeler, "warm-up")
    agent: Any = callback.player
    own = [(module, "step"), (module, "forward"), (trainer.strategy, "backward"), (trainer.optimizers[0], "step")]
    agents = [(agent, "train"), (agent.policy, "forward"), (agent.policy, "predict_values")]
    with spent.watching(*own, *agents):
        start = time.perf_counter()
        callback._play(trainer, module, labeler, "0")
        return {"agent_epoch": time.perf_counter() - start, "networks": spent.seconds}


def in_fit(data: ImageDataModule, width: float, measure: Callable[..., dict[str, float]]) -> dict[str, float]:
    """The measurement, in a fit of WA-RL's module."""
    callback = InFit(measure)
    module = make_module(data, width, {"weighted": True, "untrained": True})
    arguments = QUIET | {"num_sanity_val_steps": 0, "limit_val_batches": 0}
    L.Trainer(max_epochs=1, callbacks=[callback], **arguments).fit(module, data)
    return callback.result


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, for some two minutes")
    parser.add_argument("--width", type=float, default=0.25, help="factor on VGG16's channels")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rounds = 1 if arguments.quick else 3
    images = 600 if arguments.quick or arguments.root is None or arguments.width > 0.5 else 2000
    data = make_data(arguments.root, images)
    header(rounds=rounds, batch=100, width=arguments.width, images=images, data=type(data).__name__)
    rolled = in_fit(data, arguments.width, rollouts(batches=3, rounds=2 * rounds))
    spent = in_fit(data, arguments.width, overhead)
    times: dict[str, list[float]] = {method: [] for method in dict.fromkeys(["single", *arguments.methods])}
    for _ in range(rounds):
        for method, seconds in times.items():
            seconds.append(epoch_seconds(data, arguments.width, method))
    single = statistics.median(times["single"])
    figures = {
        "single_epoch_s": single,
        "parallel_rollout_speedup": rolled["single_image"] / rolled["parallel"],
        "with_steps_speedup": rolled["single_image_with_steps"] / rolled["parallel_with_steps"],
        "overhead_share": 1 - spent["networks"] / spent["agent_epoch"],
    } | {f"{method}_epochs": statistics.median(seconds) / single for method, seconds in times.items()}
    for name, value in figures.items():
        print(f"{name:32s}{value:10.3f}")
    bounds = {"overhead_share": 0.1, "wa_rl_shared_epochs": 3.2, "wa_rl_online_epochs": 2.0}
    missed = [f"{name} > {bound}" for name, bound in bounds.items() if figures.get(name, 0) > bound]
    if figures["parallel_rollout_speedup"] < 5:
        missed.append("parallel_rollout_speedup < 5")
    if missed:
        print("missed    " + ", ".join(missed))
    report({name: round(float(np.float64(value)), 4) for name, value in figures.items()}, ok=not missed)


if __name__ == "__main__":
    main()
