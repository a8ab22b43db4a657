import json

import lightning as L
import pytest
import torch

from auxlight import DigitsDataModule, HumanLabels, MultiHeadVGG
from auxlight.comparison import RunRecord
from auxlight.inspection.gradients import task_gradients
from tests.quiet import TRAINER


class Steps(L.Callback):
    """The trunk before and after each step, and the gradients when an epoch was validated."""

    def __init__(self):
        self.moves, self.gradients = [], []

    def trunk(self, module):
        return torch.cat([parameter.detach().flatten() for parameter in module.trunk.parameters()]).clone()

    def on_train_batch_start(self, trainer, module, *_):
        self.before = self.trunk(module)

    def on_train_batch_end(self, trainer, module, *_):
        self.moves.append(float((self.trunk(module) - self.before).norm()))

    def on_validation_epoch_end(self, trainer, module):
        batch = trainer.strategy.batch_to_device(trainer.datamodule.sample("val", 64, 0))
        self.gradients.append(task_gradients(module, batch))


def fit(tmp_path, callbacks, seed=3):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(num_train=100, batch_size=25)
    module = MultiHeadVGG(data.hierarchy, labeler=HumanLabels(), depth=11, width=0.0625)
    trainer = L.Trainer(**TRAINER, max_epochs=2, num_sanity_val_steps=0, callbacks=callbacks)
    trainer.fit(module, data)
    return module


def test_it_says_how_far_the_trunk_is_pulled_and_moved(tmp_path):
    record, steps = RunRecord(str(tmp_path), tested=False), Steps()
    fit(tmp_path, [record, steps])
    epochs = json.loads((tmp_path / "result.json").read_text())["epochs"]
    assert len(epochs) == 2
    for epoch, move, gradients in zip(epochs, steps.moves[3::4], steps.gradients, strict=True):
        assert epoch["trunk/update_norm"] == pytest.approx(move, rel=1e-5) and move > 0
        assert {name: epoch[name] for name in gradients} == pytest.approx(gradients)
        assert epoch["gradients/primary_norm"] > 0 and -1 <= epoch["gradients/labelled_cosine"] <= 1


def test_a_trunk_that_does_not_train_is_recorded_all_the_same(tmp_path):
    L.seed_everything(3, verbose=False)
    data = DigitsDataModule(num_train=100, batch_size=25)
    module = MultiHeadVGG(data.hierarchy, labeler=HumanLabels(), depth=11, width=0.0625)
    module.trunk.requires_grad_(False)
    record = RunRecord(str(tmp_path), tested=False)
    L.Trainer(**TRAINER, max_epochs=1, num_sanity_val_steps=0, callbacks=[record]).fit(module, data)
    (epoch,) = json.loads((tmp_path / "result.json").read_text())["epochs"]
    assert epoch["trunk/update_norm"] == 0 and not [name for name in epoch if name.startswith("gradients/")]


def test_the_checkpoint_that_is_tested_takes_no_epoch_away():
    record = RunRecord("x")
    record.load_state_dict(
        {"epochs": [{"epoch": 0}, {"epoch": 1}], "seconds": 2.0, "cpu_seconds": 3.0}
    )  # a resumed run
    record.load_state_dict({"epochs": [{"epoch": 0}], "seconds": 1.0, "cpu_seconds": 1.5})  # its best checkpoint
    assert len(record.epochs) == 2 and (record.seconds, record.cpu_seconds) == (2.0, 3.0)


def test_a_recorded_run_ends_where_an_unrecorded_one_does(tmp_path):
    one, other = (
        fit(tmp_path, callbacks) for callbacks in ([RunRecord(str(tmp_path), tested=False, last_epochs=1)], [])
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
