"""A run that is killed without warning, and taken up from its last checkpoint."""

import os
import signal
from functools import partial

import lightning as L
import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from auxlight import AgentLabels, DigitsDataModule, ImprovementReward, MultiHeadVGG, RLAuxCallback
from auxlight.checkpoints import LastCheckpoint
from auxlight.rl import PaperPPO
from tests.devices import SERVER
from tests.quiet import TRAINER


class KillingReward(ImprovementReward):
    """Kills the process after so many steps of the game; writes a checkpoint first where there is a path for it."""

    def __init__(self, steps, path=None):
        super().__init__(32)
        self.left, self.path = steps, path

    def after_step(self, learner, *arguments):
        self.left -= 1
        if self.left == 0:
            if self.path is not None:  # as Lightning does when a cluster says that the time is over
                learner.trainer.save_checkpoint(self.path)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().after_step(learner, *arguments)


class KillingCallback(L.Callback):
    """Kills the process after so many steps of the main network."""

    def __init__(self, steps):
        self.steps = steps

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step == self.steps:
            os.kill(os.getpid(), signal.SIGKILL)


def run(folder, agent_steps=0, main_steps=0, saves=False, **options):
    torch.set_num_threads(1)
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(
        data.hierarchy,
        depth=11,
        width=0.0625,
        labeler=AgentLabels(weighted=True, feature_dim=16),
        optimizer=partial(SGD, lr=0.05, momentum=0.9),
        scheduler=partial(StepLR, step_size=1, gamma=0.5),
    )
    agent = RLAuxCallback(
        agent=partial(PaperPPO, n_epochs=2),
        reward=KillingReward(agent_steps, folder / "last.ckpt" if saves else None),
        **options,
    )
    checkpoint = LastCheckpoint()
    checkpoint.dirpath = str(folder)
    arguments = TRAINER | {"enable_checkpointing": True}
    trainer = L.Trainer(max_epochs=3, callbacks=[agent, KillingCallback(main_steps), checkpoint], **arguments)
    last = folder / "last.ckpt"
    trainer.fit(module, data, ckpt_path=last if last.exists() else None)
    torch.save(module.state_dict(), folder / "end.pt")


def exit_code(folder, **arguments):
    process = SERVER.Process(target=run, args=(folder,), kwargs=arguments)
    process.start()
    process.join(120)
    return process.exitcode


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The end of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("whole")
    assert exit_code(folder) == 0
    return torch.load(folder / "end.pt", weights_only=True)


@pytest.mark.parametrize(
    ("at", "epochs_kept"),
    [({"agent_steps": 3}, 0), ({"agent_steps": 10}, 2), ({"main_steps": 6}, 1)],
    ids=["in the first agent epoch", "in the last agent epoch", "in a main epoch"],
)
def test_it_ends_where_the_uninterrupted_one_does(at, epochs_kept, whole, tmp_path):
    check(tmp_path, at, epochs_kept, whole)


@pytest.mark.parametrize("agent_steps", [3, 10], ids=["in the first agent epoch", "in the last agent epoch"])
def test_a_checkpoint_from_inside_the_game_is_of_the_moment_before(agent_steps, whole, tmp_path):
    check(tmp_path, {"agent_steps": agent_steps, "saves": True}, 0, whole)


def test_so_it_is_in_a_pretraining(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    assert exit_code(tmp_path / "whole", pretrain_epochs=2) == 0
    whole = torch.load(tmp_path / "whole" / "end.pt", weights_only=True)
    check(tmp_path / "killed", {"agent_steps": 6, "saves": True}, 0, whole, pretrain_epochs=2)


def test_so_does_one_that_learns_online(tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    assert exit_code(tmp_path / "whole", online=True) == 0
    whole = torch.load(tmp_path / "whole" / "end.pt", weights_only=True)
    check(tmp_path / "killed", {"agent_steps": 7}, 1, whole, online=True)


def check(tmp_path, at, epochs_kept, whole, **options):
    assert exit_code(tmp_path, **at, **options) == -signal.SIGKILL
    assert not (tmp_path / "end.pt").exists()
    if epochs_kept:
        assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == epochs_kept - 1
    assert exit_code(tmp_path, **options) == 0
    end = torch.load(tmp_path / "end.pt", weights_only=True)
    assert [name for name, value in whole.items() if not torch.equal(end[name], value)] == []
