"""Small fits of the bi-level modules, and what they leave."""

import copy

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from auxlight import DigitsDataModule, LabelNetwork
from tests import quiet

TRAINER = quiet.TRAINER | {"limit_val_batches": 0}


class Trunk(nn.Module):
    def __init__(self, feature_dim=8, dropout=0.0):
        super().__init__()
        self.feature_dim = feature_dim
        convolution = nn.Conv2d(3, feature_dim, 3, stride=2, bias=False)
        self.layers = nn.Sequential(convolution, nn.BatchNorm2d(feature_dim), nn.Tanh(), nn.AdaptiveAvgPool2d(1))
        self.dropout = nn.Dropout(dropout)

    def forward(self, image):
        return self.dropout(self.layers(image).flatten(1))


def fit(
    kind, epochs=1, *, seed=0, vgg=False, dropout=0.0, labels=None, data=None, trainer=None, ckpt_path=None, **arguments
):
    """The trainer, the module, and the state that it started from."""
    L.seed_everything(seed, verbose=False)
    data = DigitsDataModule(**{"num_train": 200, "batch_size": 50} | (data or {}))
    labels = {"weighted": True} | (labels or {})
    if vgg:
        arguments |= {"depth": 11, "width": 0.0625}
    else:
        arguments["trunk"] = Trunk(dropout=dropout)
        if not labels.get("shared_trunk"):
            labels["trunk"] = Trunk(dropout=dropout)
    module = kind(data.hierarchy, labeler=LabelNetwork(**labels), **arguments)
    start = copy.deepcopy(module.state_dict())
    trainer = L.Trainer(max_epochs=epochs, **(TRAINER | (trainer or {})))
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer, module, start


def state(module):
    """Parameters and buffers of both networks."""
    return {name: value.clone() for name, value in module.state_dict().items() if "metrics" not in name}


def assert_equal(one, other):
    """Bit for bit."""
    one, other = (part if isinstance(part, dict) else state(part) for part in (one, other))
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def assert_all_moved(module, start):
    names = [name for name, _ in module.named_parameters()]
    assert [name for name in names if torch.equal(module.state_dict()[name], start[name])] == []


def assert_resumes(kind, folder, **recipe):
    """A run taken up at the end of its second epoch ends where it did."""
    every_epoch = ModelCheckpoint(folder, "{epoch}", save_top_k=-1)
    _, whole, _ = fit(kind, 3, trainer={"enable_checkpointing": True, "callbacks": [every_epoch]}, **recipe)
    trainer, resumed, _ = fit(kind, 3, ckpt_path=folder / "epoch=1.ckpt", **recipe)
    assert trainer.current_epoch == 3
    assert_equal(whole, resumed)


def one_label_step(module, batches):
    """What `label_step` on these batches subtracts from the label network, whose optimizer is plain SGD at rate 1."""
    start = {name: p.detach().clone() for name, p in module.label_network.named_parameters()}
    module.training_step = lambda *_: module.label_step(batches)
    module.on_fit_start = module.finish_pass = lambda: None
    L.Trainer(max_epochs=1, limit_train_batches=1, **TRAINER).fit(
        module, torch.utils.data.DataLoader(torch.zeros(2, 1))
    )
    return {name: start[name] - p.detach() for name, p in module.label_network.named_parameters()}


def indices(batches):
    return [i for batch in batches for i in batch.index.tolist()]
