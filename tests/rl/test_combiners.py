"""Rules that remember and learn, while an agent plays."""

import copy

import lightning as L
import pytest
import torch
from torchjd.aggregation import ExcessMTL

from auxlight import (
    AgentLabels,
    Aggregation,
    AuxiNash,
    BatchReward,
    CombinationNetwork,
    DigitsDataModule,
    DynamicWeightAverage,
    GradNorm,
    MultiHeadVGG,
    RandomWeights,
    RLAuxCallback,
    RotationTask,
    SLGrad,
)
from tests.quiet import TRAINER

pytestmark = pytest.mark.filterwarnings("ignore:`data.meta_split` holds")

GAMES = {"epoch": {}, "batch": {"reset": "batch"}, "online": {"online": True}}
RULES = {
    "auxinash": lambda: AuxiNash(interval=1),
    "combination": lambda: CombinationNetwork((3,), interval=1),
    "slgrad": SLGrad,
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "rlw": RandomWeights,
    "ExcessMTL": lambda: Aggregation(ExcessMTL()),
}


class Watched(MultiHeadVGG):
    """Notes which batches were asked for beside the step."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.further = {}

    def next_batch(self, stream, split):
        found = super().next_batch(stream, split)
        self.further.setdefault(stream, []).append(found.index.tolist())
        return found


def fit(rule, game, epochs=2, play=True, seed=0):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(num_train=160, batch_size=30, meta_split=0.25)
    labeler = AgentLabels(weighted=True, shared_trunk=True, untrained=not play)
    module = Watched(
        data.hierarchy, depth=11, width=0.0625, labeler=labeler, tasks=[RotationTask()], combiner=RULES[rule]()
    )
    callbacks = [RLAuxCallback(reward=BatchReward(30), **GAMES[game])] if play else []
    trainer = L.Trainer(**TRAINER | {"limit_val_batches": 0}, max_epochs=epochs, callbacks=callbacks)
    trainer.fit(module, data)
    return module


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("rule", RULES)
def test_every_game_with_a_rule_that_remembers_or_learns(rule, game):
    module = fit(rule, game)
    assert all(torch.isfinite(p).all() for p in module.parameters())
    asked = [stream for stream in module.further if "further" in stream]
    # While it plays a whole epoch of its own, no rule learns from labels that the agent explores.
    assert asked == (["further batch aside"] if rule in ("auxinash", "combination") else [])


@pytest.mark.parametrize("game", ["epoch", "batch"])
def test_the_main_epochs_further_batches_are_the_same_without_a_game(game):
    played, alone = fit("slgrad", game), fit("slgrad", game, play=False)
    assert played.further["judge aside"] == alone.further["judge aside"]
    assert "judge in the game" in played.further and "judge in the game" not in alone.further


@pytest.mark.parametrize("rule", ["gradnorm", "dwa", "rlw", "ExcessMTL", "slgrad"])
def test_a_game_leaves_the_rule_as_it_was(rule):
    states = []

    class Around(RLAuxCallback):
        def on_train_epoch_start(self, trainer, module):
            before = copy.deepcopy(module.combiner.state_dict())
            super().on_train_epoch_start(trainer, module)
            states.append((before, copy.deepcopy(module.combiner.state_dict())))

    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=160, batch_size=30, meta_split=0.25)
    module = MultiHeadVGG(
        data.hierarchy, depth=11, width=0.0625, labeler=AgentLabels(shared_trunk=True), combiner=RULES[rule]()
    )
    callbacks = [Around(reward=BatchReward(30))]
    L.Trainer(**TRAINER | {"limit_val_batches": 0}, max_epochs=2, callbacks=callbacks).fit(module, data)
    assert len(states) == 2
    for before, after in states:
        assert str(before) == str(after)
    assert rule == "slgrad" or str(states[0][0]) != str(states[1][0])


@pytest.mark.parametrize("rule", ["auxinash", "combination"])
def test_an_online_agents_decision_is_of_the_steps_own_batch(rule):
    """The rule asks for labels of further batches, too."""
    chosen, stepped = [], []

    class Callback(RLAuxCallback):
        def _explore(self, trainer, game, batch, seen):
            chosen.append(batch.index.tolist())
            return super()._explore(trainer, game, batch, seen)

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            stepped.append(batch.index.tolist())
            super().on_train_batch_end(trainer, module, outputs, batch, batch_idx)

    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=160, batch_size=30, meta_split=0.25)
    labeler = AgentLabels(shared_trunk=True)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler, combiner=RULES[rule]())
    callbacks = [Callback(reward=BatchReward(30), online=True)]
    L.Trainer(**TRAINER | {"limit_val_batches": 0}, max_epochs=1, callbacks=callbacks).fit(module, data)
    assert chosen == stepped and len(stepped) == 4
