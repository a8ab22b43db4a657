"""How much of an agent's reward its labels are worth, and how many samples each reward needs.

    python benchmarks/reward_signal.py [--quick] [--root DIR] [--width W] [--demonstrate PASSES]

1. Signal. Real CIFAR-100 from a mirror in DIR (the embedded digits without it), VGG16 after 250 steps. One batch of 100
is labelled at random, one-hot inside the blocks, again and again; after the network's step each reward is measured. Of
its variance, `labels` is the share that belongs to the labelling rather than to the choice of the evaluation images (a
table of labellings × evaluation batches, two-way analysis of variance), and `own_label` the share in an image's reward
that belongs to its own label (each labelling with evaluation images of its own, one-way analysis, pooled over images).

2. Samples. A toy where one label of two is known to help each image: logistic regression on 20 features, whose
auxiliary loss pulls an image's logit up (first label) or down (second), in batches of 8. The agent is PPO, the same for
all rewards; it has found the labels once 90 % of its most probable ones are right on new images.

3. With --demonstrate: on the same network an agent rewarded by influence learns for so many passes over 20 batches;
then it and a copy from before play the same batches from the same network.

Targets: influence needs at most 1/5 and improvement at most 1/2 of the samples of the batch reward (medians of seeds; a
reward that has not got there counts as the samples that it had); the trained agent earns more than its frozen copy, and
its labels are less even than that one's.
"""

import argparse
import copy
import itertools
import logging
import statistics
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import torch
from agent_epoch import QUIET, InFit, make_data
from common import header, report
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD

from auxlight import AgentLabels, BatchReward, ImprovementReward, InfluenceReward, MultiHeadVGG
from auxlight.batch import AuxiliaryTarget, Batch
from auxlight.hierarchy import LabelHierarchy
from auxlight.labelers import LabelActions
from auxlight.networks import AgentNetwork
from auxlight.rl import AuxTaskVecEnv, ImageObservation, LabellingGame, PaperPPO, Reward
from auxlight.rl.module_learner import ModuleLearner
from auxlight.rl.player import Player
from auxlight.rl.policy import AgentPolicy
from auxlight.rl.tally import Tally

REWARDS: dict[str, Callable[[int], Reward]] = {
    "batch": lambda size: BatchReward(size, entropy_weight=0.0),
    "improvement": lambda size: ImprovementReward(size),
    "influence": lambda size: InfluenceReward(size, normalize=False),
}
WARM_UP = 250  # steps


def measured(reward: Reward, learner: ModuleLearner, batch: Batch, target: AuxiliaryTarget, images: Batch) -> Tensor:
    """Rewards (B,) of a labelling from the canonical network."""
    learner.restore()
    reward.start()
    before = reward.before_step(learner, images)
    learner.train_on(batch, target)
    return reward.after_step(learner, batch, target, images, before)


def label_share(table: Tensor) -> float:
    """Of the variance of (labellings, evaluation batches), the labellings' component; two-way analysis of variance."""
    rows, columns = table.shape
    row, column = table.mean(1, keepdim=True), table.mean(0, keepdim=True)
    residual = (table - row - column + table.mean()).square().sum() / ((rows - 1) * (columns - 1))
    of_rows = ((columns * row.var() - residual) / columns).clamp_min(0)
    of_columns = ((rows * column.var() - residual) / rows).clamp_min(0)
    return float(of_rows / (of_rows + of_columns + residual))


def own_label_share(rewards: Tensor, places: Tensor) -> float:
    """Of the variance of rewards (labellings, B), the component of an image's own place (labellings, B); one-way."""
    groups = F.one_hot(places).double()  # (L, B, ψ)
    counts = groups.sum(0)
    means = (groups * rewards[:, :, None]).sum(0) / counts.clamp_min(1)
    within = ((rewards[:, :, None] - means).square() * groups).sum() / (counts.sum() - (counts > 0).sum())
    between_mean = (counts * (means - rewards.mean(0)[:, None]).square()).sum() / ((counts > 0).sum() - len(counts))
    size = (len(rewards) - (counts.square().sum(1) / len(rewards))).sum() / ((counts > 0).sum(1) - 1).sum()
    between = ((between_mean - within) / size).clamp_min(0)
    return float(between / (between + within))


def signal(rounds: int) -> Callable[[L.Trainer, MultiHeadVGG], dict[str, float]]:
    """The shares of each reward."""

    def measure(trainer: L.Trainer, module: MultiHeadVGG) -> dict[str, float]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        labeler: AgentLabels = module.labelled_task.labeler  # type: ignore[union-attr,assignment]
        learner = ModuleLearner(trainer, module, labeler)
        learner.snapshot()
        batch = next(iter(data.training_batches("labelled", 0)))
        images = list(itertools.islice(forever(data, 256), rounds))
        psi = max(labeler.hierarchy.psi)
        drawn = torch.randint(psi, (5 * rounds, len(batch.image), 1), generator=torch.Generator().manual_seed(1))
        targets = [labeler.actions.target(chosen, batch.primary) for chosen in drawn]
        figures = {}
        for name, make in REWARDS.items():
            reward = make(256)
            table = [[measured(reward, learner, batch, target, seen) for seen in images] for target in targets[:rounds]]
            means = torch.tensor([[float(rewards.double().mean()) for rewards in row] for row in table])
            figures[f"{name}_labels"] = label_share(means)
            fresh = itertools.islice(forever(data, 256, "fresh"), len(targets))
            single = [measured(reward, learner, batch, *both) for both in zip(targets, fresh, strict=True)]
            figures[f"{name}_own_label"] = own_label_share(torch.stack(single).double(), drawn[:, :, 0])
        return figures

    return measure


def forever(data: Any, size: int, stream: str = "evaluation") -> Iterator[Batch]:
    """Evaluation batches."""
    for number in itertools.count():
        yield from data.training_batches(stream, number, size)


class Warm(InFit):
    """Measures once the network has trained for a while, on labels of an untrained agent."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Measure, at last."""
        if trainer.global_step == WARM_UP:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


def after_warm_up(root: Path | None, width: float, measure: Callable[..., dict[str, float]]) -> dict[str, float]:
    """The measurement on a half-trained network."""
    data = make_data(root, 600 if root is None else 5000)
    torch.manual_seed(0)
    labels = AgentLabels(block_relative=True, sharpness=float("inf"), untrained=True)
    module = MultiHeadVGG(data.hierarchy, width=width, labeler=labels, optimizer=partial(SGD, lr=0.01))
    callback = Warm(measure)
    arguments = QUIET | {"num_sanity_val_steps": 0, "limit_val_batches": 0}
    L.Trainer(max_epochs=-1, callbacks=[callback], **arguments).fit(module, data)
    return callback.result


def demonstration(passes: int) -> Callable[[L.Trainer, MultiHeadVGG], dict[str, float]]:
    """What an agent that has learned earns, and a copy from before, on the same batches from the same network."""

    def measure(trainer: L.Trainer, module: MultiHeadVGG) -> dict[str, float]:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        labeler: AgentLabels = module.labelled_task.labeler  # type: ignore[union-attr,assignment]
        learner = ModuleLearner(trainer, module, labeler)
        learner.snapshot()
        frozen = copy.deepcopy(labeler.network)
        number = itertools.count()
        game = LabellingGame(
            learner,
            lambda: itertools.islice(data.training_batches("agent", next(number)), 20),
            forever(data, 100),
            labeler.actions,
            InfluenceReward(100),
        )
        env = AuxTaskVecEnv(game, ImageObservation(data.image_shape), 100)
        player = Player(PaperPPO(AgentPolicy.around(labeler.network), env, device="cpu", gamma=0.0))
        labeler.network.requires_grad_(True)
        for _ in range(passes):
            player.play(env, 20)

        def earned(network: AgentNetwork) -> tuple[float, float]:
            tally = Tally(labeler.actions)
            torch.manual_seed(0)
            judged = LabellingGame(
                learner,
                lambda: itertools.islice(data.training_batches("test", 0), 20),
                forever(data, 100, "test evaluation"),
                labeler.actions,
                InfluenceReward(100),
                watch=tally.add,
            )
            batch: Batch | None = judged.start()
            while batch is not None:
                with torch.no_grad():
                    parts = network(batch.image).split(network.action_sizes, -1)
                judged.label(torch.stack([torch.distributions.Categorical(logits=p).sample() for p in parts], -1))
                batch = judged.batch
            learner.restore()
            return tally.scalars()["agent/reward"], tally.scalars()["agent/label_entropy"]

        (trained, entropy), (before, uniform) = earned(labeler.network), earned(frozen)
        labeler.network.requires_grad_(False)
        return {
            "trained_reward": trained,
            "frozen_reward": before,
            "trained_label_entropy": entropy,
            "frozen_label_entropy": uniform,
        }

    return measure


class Logistic:
    """The toy's main network: θ·x, trained by SGD; label 0 pulls an image's logit up, label 1 down."""

    def __init__(self) -> None:
        self.theta = torch.zeros(20)
        self.lr = 0.5

    def aux_slope(self, batch: Batch, target: AuxiliaryTarget) -> Tensor:
        """∇ of each image's auxiliary loss, (B, 20)."""
        up = target.probabilities[:, 0::2].sum(1) - target.probabilities[:, 1::2].sum(1)
        logit = batch.image @ self.theta
        return -(up * torch.sigmoid(-up * logit))[:, None] * batch.image

    def slope(self, theta: Tensor, batch: Batch) -> Tensor:
        """∇ of the mean primary loss."""
        return ((torch.sigmoid(batch.image @ theta) - batch.primary)[:, None] * batch.image).mean(0)

    def train_on(self, batch: Batch, target: AuxiliaryTarget) -> None:
        """See `Learner.train_on`."""
        self.last = self.aux_slope(batch, target)
        self.theta = self.theta - self.lr * (self.slope(self.theta, batch) + self.last.mean(0))

    def primary_loss(self, batch: Batch) -> float:
        """See `Learner.primary_loss`."""
        return float(F.binary_cross_entropy_with_logits(batch.image @ self.theta, batch.primary.float()))

    def snapshot(self) -> None:
        """The canonical network is the untrained one."""

    def restore(self) -> None:
        """See `Learner.restore`."""
        self.theta = torch.zeros(20)

    def position(self) -> None:
        """See `InfluenceLearner.position`."""

    def influence(self, before: None, batch: Batch, target: AuxiliaryTarget, evaluation: Batch) -> Tensor:
        """See `InfluenceLearner.influence`."""
        return self.lr / len(batch.image) * self.last @ self.slope(self.theta, evaluation)


def toy_batches(generator: torch.Generator, size: int) -> Iterator[Batch]:
    """Images of 20 numbers; the sign of the first is the class."""
    while True:
        image = torch.randn(size, 20, generator=generator)
        yield Batch(image, (image[:, 0] > 0).long(), None, torch.arange(size))


def samples_needed(make: Callable[[int], Reward], seed: int, limit: int) -> int:
    """Until nine labels of ten are right, or all that there were."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # tiny tensors
    generator = torch.Generator().manual_seed(seed)
    actions = LabelActions(LabelHierarchy((2, 2)), block_relative=True, sharpness=float("inf"))
    episode = toy_batches(generator, 8)
    evaluation = toy_batches(generator, 64)
    reward = make(64)
    if isinstance(reward, InfluenceReward):
        reward.normalize = True
    learner: Any = Logistic()
    game = LabellingGame(learner, lambda: itertools.islice(episode, 40), evaluation, actions, reward)
    env = AuxTaskVecEnv(game, ImageObservation((20,)), 8)
    network = AgentNetwork(nn.Sequential(nn.Linear(20, 32), nn.Tanh()), 32, 32, actions.sizes)
    sizes = {"n_steps": 40, "batch_size": 80}
    agent = PaperPPO(AgentPolicy.around(network), env, learning_rate=1e-3, gamma=0.0, device="cpu", **sizes)
    player = Player(agent)
    test = next(toy_batches(torch.Generator().manual_seed(999), 1000))
    while agent.num_timesteps < limit:
        player.play(env, 40)
        right = network.act(test.image)[:, 0] == 1 - test.primary
        if float(right.float().mean()) >= 0.9:
            break
    return agent.num_timesteps


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, for some two minutes")
    parser.add_argument("--width", type=float, default=0.25, help="factor on VGG16's channels")
    parser.add_argument("--root", type=Path, help="folder with cifar100.npz; the embedded digits without it")
    parser.add_argument("--demonstrate", type=int, default=0, metavar="PASSES", help="let an agent learn, and compare")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rounds, seeds, limit = (4, 3, 30_000) if arguments.quick else (8, 5, 100_000)
    header(rounds=rounds, seeds=seeds, limit=limit, width=arguments.width, root=arguments.root and "given")
    figures: dict[str, float] = {}
    threads = torch.get_num_threads()
    needed = {name: [samples_needed(make, seed, limit) for seed in range(seeds)] for name, make in REWARDS.items()}
    for name, counts in needed.items():
        print(f"samples of {name:12s} {counts}")
        figures[f"{name}_samples"] = statistics.median(counts)
    torch.set_num_threads(threads)
    figures |= after_warm_up(arguments.root, arguments.width, signal(rounds))
    if arguments.demonstrate:
        figures |= after_warm_up(arguments.root, arguments.width, demonstration(arguments.demonstrate))
    for name, value in figures.items():
        print(f"{name:32s}{value:14.5f}")
    missed = [
        f"{name}_samples > 1/{share} of batch_samples"
        for name, share in (("influence", 5), ("improvement", 2))
        if figures[f"{name}_samples"] * share > figures["batch_samples"]
    ]
    if arguments.demonstrate and figures["trained_reward"] <= figures["frozen_reward"]:
        missed.append("trained_reward <= frozen_reward")
    if arguments.demonstrate and figures["trained_label_entropy"] >= figures["frozen_label_entropy"]:
        missed.append("trained_label_entropy >= frozen_label_entropy")
    if missed:
        print("missed    " + ", ".join(missed))
    report({name: round(value, 6) for name, value in figures.items()}, ok=not missed)


if __name__ == "__main__":
    main()
