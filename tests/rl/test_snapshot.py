"""An agent that sees the main network as it was when it last began to play."""

import copy
from functools import partial

import lightning as L
import pytest
import torch

from auxlight import (
    AgentLabels,
    DigitsDataModule,
    InfluenceReward,
    InputError,
    MultiHeadVGG,
    RLAuxCallback,
)
from auxlight.networks.snapshot import Snapshot
from auxlight.rl import PaperPPO
from tests.quiet import TRAINER


class Asked(L.Callback):
    """Asks after each epoch's first and last batch for the labels of the same images; remembers the trunk before."""

    def __init__(self):
        self.trunks, self.answers = [], []

    def on_train_epoch_start(self, trainer, module):
        self.trunks.append(copy.deepcopy(module.trunk.state_dict()))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if batch_idx == 0:
            self.batch = batch
        if batch_idx in (0, trainer.num_training_batches - 1):
            labeler = module.labelled_task.labeler
            with torch.no_grad(), labeler.at_rest():
                self.answers.append(labeler.seen(self.batch, module.features(self.batch.image)))


def fit(snapshot, epochs=2, **options):
    L.seed_everything(0, verbose=False)
    data = DigitsDataModule(num_train=200, batch_size=50)
    labeler = AgentLabels(weighted=True, feature_dim=16, shared_trunk=True, snapshot=snapshot)
    module, asked = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=labeler), Asked()
    callback = RLAuxCallback(agent=partial(PaperPPO, n_epochs=1, gamma=0.0), reward=InfluenceReward(32), **options)
    L.Trainer(max_epochs=epochs, callbacks=[asked, callback], **TRAINER).fit(module, data)
    return labeler, asked


@pytest.mark.parametrize("online", [False, True])
def test_what_it_sees_holds_still_within_an_epoch(online):
    _, asked = fit(True, online=online)
    for begin, end in zip(asked.answers[::2], asked.answers[1::2], strict=True):
        assert torch.equal(begin, end)
    _, moving = fit(False, online=online)
    assert not torch.allclose(*moving.answers[:2])


def test_it_sees_the_network_from_before_its_last_play():
    labeler, asked = fit(True, epochs=4, every_n_epochs=2)
    held = labeler.snapshot.network.state_dict()
    for number, trunk in enumerate(asked.trunks):
        same = all(torch.equal(trunk[name], held[name]) for name in held)
        assert same == (number == 2)  # played before epochs 0 and 2


class Counting(torch.nn.Module):
    """A trunk with a buffer that no checkpoint holds."""

    feature_dim = 3

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(()), persistent=False)

    def forward(self, image):
        return self.scale * image.mean((2, 3))


def test_a_snapshot_is_of_all_buffers_and_of_no_hook():
    network, image, seen = Counting(), torch.randn(2, 3, 4, 4), []
    network.register_forward_hook(lambda *_: seen.append(1))
    snapshot = Snapshot(network)
    network.scale.fill_(2)
    assert torch.equal(snapshot(image), image.mean((2, 3))) and not seen
    snapshot.renew(network)
    assert torch.equal(snapshot(image), 2 * image.mean((2, 3))) and not seen
    network(image)
    assert seen == [1]


def test_a_trunk_that_cannot_be_copied_is_refused():
    trunk = Counting()
    trunk.product = torch.ones(1, requires_grad=True) * 2
    with pytest.raises(InputError, match="`snapshot` needs a trunk that can be copied"):
        Snapshot(trunk)


def test_a_trunk_whose_weights_a_hook_makes_is_refused():
    trunk = torch.nn.Sequential(torch.nn.utils.spectral_norm(torch.nn.Linear(4, 4)))
    with pytest.raises(InputError, match="old-style spectral norm"):
        Snapshot(trunk)
    layer = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 4)).eval()
    snapshot, image = Snapshot(layer), torch.randn(3, 4)
    assert torch.equal(snapshot(image), layer(image))


def test_a_snapshot_evaluates_without_gradient_and_follows_nothing():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4), torch.nn.BatchNorm1d(4)).double()
    snapshot, image = Snapshot(network), torch.randn(5, 3, 2, 2, dtype=torch.float64)
    expected = copy.deepcopy(network).eval()(image)
    network.train()(image)
    with torch.no_grad():
        network[1].weight.add_(1)
    assert not any(part.training for part in snapshot.train().modules())
    assert torch.equal(snapshot(image), expected) and not snapshot(image).requires_grad
    assert not any(parameter.requires_grad for parameter in snapshot.parameters())
    snapshot.renew(network)
    assert torch.equal(snapshot(image), network.eval()(image))
    assert snapshot.network[1].weight.data_ptr() != network[1].weight.data_ptr()
