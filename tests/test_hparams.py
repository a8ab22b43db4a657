from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.core.mixins import HyperparametersMixin
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from auxlight import (
    AuxiliaryClassifier,
    DigitsDataModule,
    HumanLabels,
    LabelHierarchy,
    MultiHeadVGG,
    RandomLabels,
    WeightedSum,
)
from auxlight.hparams import HyperparameterTab, save_plain_hyperparameters

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # Lightning's use of torch
]

TRAINER = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "fast_dev_run": 1}
PLAIN = {bool, int, float, str, type(None)}


class Owner(HyperparametersMixin):
    def __init__(self, value=None, other=3) -> None:
        super().__init__()
        save_plain_hyperparameters(self)


class Heir(Owner):
    def __init__(self, value=None, own="mine") -> None:
        super().__init__(value, other=4)


def script_made(aux_weight: float = 4) -> MultiHeadVGG:
    torch.manual_seed(0)
    return MultiHeadVGG(
        LabelHierarchy((5, 5)),
        depth=11,
        width=0.0625,
        labeler=RandomLabels(seed=0),
        combiner=WeightedSum(),
        aux_weight=aux_weight,
        optimizer=lambda params: SGD(params, lr=0.01),
        scheduler=lambda optimizer: StepLR(optimizer, 1),
    )


def is_plain(value) -> bool:
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(is_plain(part) for pair in value.items() for part in pair)
    return type(value) in PLAIN


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.5, "text", [1, 2], (1, [2.0, "x"]), {"class_path": "a.B", "init_args": {"x": [1, None]}}],
)
def test_plain_values_stay(value):
    assert dict(Owner(value).hparams) == {"value": value, "other": 3}


@pytest.mark.parametrize("value", [nn.Linear(2, 2), lambda: 3, torch.zeros(2), [nn.ReLU()], {"a": object()}, {1: 2}])
def test_objects_go(value):
    owner = Owner(value)
    assert dict(owner.hparams) == {"other": 3}
    assert dict(owner.hparams_initial) == {"other": 3}  # no hidden copy of a network


def test_paths_become_strings():
    assert Owner(Path("some") / "where").hparams["value"] == str(Path("some") / "where")


def test_a_hierarchy_becomes_its_block_sizes():
    assert Owner(LabelHierarchy((2, 3))).hparams["value"] == [2, 3]


def test_arguments_of_an_heir():
    assert dict(Heir(1).hparams) == {"value": 1, "own": "mine", "other": 4}


@pytest.mark.parametrize("value", [np.float64(0.5), np.str_("text"), [np.float64(2)], torch.Size([2, 3])])
def test_disguised_values_load_from_a_checkpoint(value, tmp_path):
    """Subclasses of float, str and tuple look plain but pickle as themselves."""
    torch.save(dict(Owner(value).hparams), tmp_path / "hparams.pt")
    torch.load(tmp_path / "hparams.pt", weights_only=True)


def test_script_made_models_hold_plain_values():
    module = script_made()
    assert {"depth": 11, "width": 0.0625, "aux_weight": 4}.items() <= dict(module.hparams).items()
    assert module.hparams["hierarchy"] == [5, 5]
    assert not {"labeler", "combiner", "optimizer", "scheduler", "trunk"} & set(module.hparams)
    assert is_plain(dict(module.hparams))
    other = AuxiliaryClassifier((2, 3), nn.Flatten(), feature_dim=12)
    assert other.hparams["hierarchy"] == (2, 3) and "trunk" not in other.hparams


@pytest.mark.parametrize("aux_weight", [4, np.float64(4)])  # the second as np.logspace gives it
def test_script_made_checkpoint(aux_weight, tmp_path):
    module = script_made(aux_weight)
    trainer = L.Trainer(**TRAINER, logger=False)
    trainer.fit(module, DigitsDataModule(batch_size=16))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    checkpoint = torch.load(tmp_path / "model.ckpt", weights_only=True)
    assert is_plain(dict(checkpoint["hyper_parameters"]))
    assert is_plain(dict(checkpoint["datamodule_hyper_parameters"]))
    loaded = MultiHeadVGG.load_from_checkpoint(
        tmp_path / "model.ckpt", hierarchy=LabelHierarchy((5, 5)), labeler=RandomLabels(seed=0)
    )
    assert loaded.aux_weight == 4 and loaded.trunk.depth == 11
    assert loaded.state_dict().keys() == module.state_dict().keys()
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), module.state_dict().values(), strict=True)
    )


def test_data_module_holds_plain_values(tmp_path):
    data = DigitsDataModule(tmp_path, batch_size=7)
    assert data.hparams["root"] == str(tmp_path) and data.hparams["batch_size"] == 7
    assert is_plain(dict(data.hparams))


def test_tab_logs_arguments_of_model_and_data(tmp_path):
    logger = CSVLogger(tmp_path)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        logger=logger,
        callbacks=[HyperparameterTab()],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(script_made(), DigitsDataModule(batch_size=16))
    logged = logger.experiment.hparams
    assert logged["model/aux_weight"] == 4 and logged["data/batch_size"] == 16
    assert not any(key.endswith("_instantiator") for key in logged)
    assert trainer.callback_metrics["hp/val_accuracy"] == trainer.callback_metrics["val/accuracy"]


def test_a_script_made_checkpoint_loads_again(tmp_path):
    data = DigitsDataModule(num_train=200, batch_size=50)
    module = MultiHeadVGG(data.hierarchy, depth=11, width=0.0625, labeler=HumanLabels())
    trainer = L.Trainer(max_epochs=0, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(module, data)
    trainer.save_checkpoint(tmp_path / "module.ckpt")
    again = MultiHeadVGG.load_from_checkpoint(tmp_path / "module.ckpt", labeler=HumanLabels())
    assert again.hierarchy == data.hierarchy
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
