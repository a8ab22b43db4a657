import json
from types import SimpleNamespace

import lightning as L
import pytest
import torch

from auxlight import DigitsDataModule, HumanLabels, InputError, MultiHeadVGG
from auxlight.comparison import RunRecord
from auxlight.comparison.provenance import commit
from auxlight.errors import DivergedError
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


def fit(tmp_path, callbacks, seed=3, epochs=2, ckpt_path=None, **options):
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(num_train=100, batch_size=25)
    module = MultiHeadVGG(data.hierarchy, labeler=HumanLabels(), depth=11, width=0.0625)
    trainer = L.Trainer(**TRAINER, max_epochs=epochs, num_sanity_val_steps=0, callbacks=callbacks, **options)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return module, trainer


def test_a_row_is_of_one_epoch(tmp_path):
    """What is logged of training comes after validation, and belongs to the same row."""

    losses = [[], []]

    class Losses(L.Callback):
        def on_train_batch_end(self, trainer, module, outputs, *_):
            losses[trainer.current_epoch].append(float(outputs["loss"]))

    record = RunRecord(str(tmp_path / "makes/its/folder"), tested=False)
    fit(tmp_path, [record, Losses()])
    assert (tmp_path / "makes/its/folder/result.json").is_file()
    expected = [sum(values) / len(values) for values in losses]
    assert [row["train/loss"] for row in record.epochs] == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-3)


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


def state(epochs, seconds):
    curves = [{"epoch": epoch} for epoch in range(epochs)]
    spent = {"seconds": seconds, "cpu_seconds": seconds}
    return {"epochs": curves, "test_accuracies": [], "commits": ["abc"], "spent": spent}


def test_the_checkpoint_that_is_tested_takes_no_epoch_away(tmp_path):
    record = RunRecord(str(tmp_path))
    record.load_state_dict(state(2, 3.0))  # a resumed run
    assert record.commits[0] == "abc" and len(record.commits) == 2  # went on with other code
    record.on_fit_end(SimpleNamespace(current_epoch=2), None)
    record.load_state_dict(state(1, 1.5))  # its best checkpoint
    assert len(record.epochs) == 2 and record.clock.spent["seconds"] == 3.0


def test_a_test_by_itself_leaves_the_result_alone(tmp_path):
    RunRecord(str(tmp_path)).on_test_end(None, None)
    assert not list(tmp_path.iterdir())


def test_time_of_epochs_that_are_not_validated_survives_an_interruption(tmp_path):
    """Validated after the fourth epoch alone; the checkpoint is of the third."""
    whole, second = (RunRecord(str(tmp_path), tested=False) for _ in range(2))
    first = RunRecord(str(tmp_path))
    fit(tmp_path, [whole], epochs=4, check_val_every_n_epoch=4)
    trainer = fit(tmp_path, [first], epochs=3, check_val_every_n_epoch=4)[1]
    trainer.save_checkpoint(tmp_path / "third.ckpt")
    assert first.clock.spent["seconds"] > 0 and not first.epochs
    fit(tmp_path, [second], epochs=4, check_val_every_n_epoch=4, ckpt_path=tmp_path / "third.ckpt")
    assert second.clock.spent["seconds"] > first.clock.spent["seconds"] and len(second.epochs) == 1


def test_the_papers_protocol_needs_its_epochs(tmp_path):
    with pytest.raises(InputError, match="needs `max_epochs` of 15 at least"):
        fit(tmp_path, [RunRecord(str(tmp_path), last_epochs=15)], epochs=2)


def test_a_run_that_ends_before_the_papers_epochs_has_no_result(tmp_path):
    with pytest.raises(InputError, match="Found 1, at an end after 2 epochs"):
        fit(tmp_path, [RunRecord(str(tmp_path), tested=False, last_epochs=2)], epochs=3, max_steps=8)
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(("tested", "healthy"), [(False, 2), (True, 0)])
def test_of_a_run_that_diverges_what_is_missing_counts_as_chance(tested, healthy, tmp_path):
    """Of even and odd digits: a half. Before its first epoch ends there is nothing else to judge it by."""

    class Explode(L.Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.current_epoch == healthy:
                next(module.parameters()).data[0] = torch.nan

    record = RunRecord(str(tmp_path), tested=tested, last_epochs=2)
    with pytest.raises(DivergedError, match=f"after epoch {healthy}"):
        fit(tmp_path, [record, Explode()], epochs=3)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["diverged"] and result["trained"] == healthy == len(result["epochs"])
    measured = result["test_accuracies"]
    assert len(measured) == healthy // 2 and result["last_epochs"] == pytest.approx(
        (sum(measured) + 0.5 * (2 - len(measured))) / 2
    )
    assert result["test"] == ({"test/accuracy": 0.5} if tested else {})


def test_without_git_a_run_has_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert commit() == ""


def test_a_run_that_was_never_validated_has_no_result(tmp_path):
    with pytest.raises(InputError, match="must be validated once"):
        fit(tmp_path, [RunRecord(str(tmp_path), tested=False)], epochs=1, limit_val_batches=0)
    assert not (tmp_path / "result.json").exists()


def test_without_the_papers_protocol_the_test_set_is_not_read(tmp_path, monkeypatch):
    """Also where only the steps are counted."""
    monkeypatch.setattr("auxlight.comparison.record.accuracy_on_test", lambda *_: pytest.fail("it was read"))
    fit(tmp_path, [RunRecord(str(tmp_path), tested=False)], epochs=-1, max_steps=6)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["test_accuracies"] == [] and result["last_epochs"] is None


def test_epochs_count_that_are_not_validated(tmp_path):
    fit(tmp_path, [RunRecord(str(tmp_path), tested=False)], epochs=5, check_val_every_n_epoch=2)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["trained"] == 5 and [row["epoch"] for row in result["epochs"]] == [1, 3]


def test_a_recorded_run_ends_where_an_unrecorded_one_does(tmp_path):
    one, other = (
        fit(tmp_path, callbacks)[0] for callbacks in ([RunRecord(str(tmp_path), tested=False, last_epochs=1)], [])
    )
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
