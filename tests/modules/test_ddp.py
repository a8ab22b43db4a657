import copy
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import lightning as L
import torch
from torch import distributed as dist
from torch import nn
from torch.optim import SGD

from auxlight import AuxiLearnModule, DigitsDataModule, ImageDataModule, LabelHierarchy, LabelNetwork, MAXLModule
from auxlight.datamodules.images import ImageSet
from auxlight.distributed import mean_over_devices
from auxlight.hypergradient import NeumannGradient
from tests.devices import on_two_devices

TRAINER = {
    "accelerator": "cpu",
    "max_epochs": 2,
    "check_val_every_n_epoch": 2,
    "num_sanity_val_steps": 0,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": True,
    "enable_model_summary": False,
}


def fitted(module, data, devices, **arguments):
    """Parameters and buffers after a fit, and by how much they moved."""
    before = copy.deepcopy(module.state_dict())
    L.Trainer(devices=devices, strategy="ddp" if devices > 1 else "auto", **TRAINER, **arguments).fit(module, data)
    return {name: (after, after - before[name]) for name, after in module.state_dict().items()}


DIGITS = {
    "two passes": (MAXLModule, {}, 0.0),
    "labels made twice": (MAXLModule, {"recompute_labels": True}, 0.0),
    "fused": (MAXLModule, {"fused": True}, 0.0),
    "two steps ahead": (MAXLModule, {"lookahead_steps": 2}, 0.2),
    "AuxiLearn": (AuxiLearnModule, {"label_interval": 2}, 0.2),
}


def fit_digits():
    states = {}
    for method, (module, arguments, meta_split) in DIGITS.items():
        L.seed_everything(dist.get_rank(), verbose=False)  # the devices begin with networks of their own
        labels = LabelNetwork(weighted=True)
        data = DigitsDataModule(num_train=200, batch_size=25, meta_split=meta_split)
        model = module(data.hierarchy, labeler=labels, depth=11, width=0.0625, **arguments)
        L.seed_everything(0, verbose=False)
        states[method] = fitted(model, data, devices=2)
    return states


def test_the_networks_of_two_devices_move_together(tmp_path):
    """And so do their batch norms' statistics, of which a checkpoint keeps the first device's."""
    one, other = on_two_devices(fit_digits, tmp_path)
    for method, state in one.items():
        assert [(method, name) for name, (_, move) in state.items() if not move.any()] == []
        assert [(method, name) for name, (at, _) in state.items() if not torch.equal(at, other[method][name][0])] == []


class Trunk(nn.Module):
    """Without batch norm, which would normalise by the images of a device."""

    feature_dim = 8

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.Tanh(), nn.AdaptiveAvgPool2d(1))

    def forward(self, image):
        return self.layers(image).flatten(1)


class Images(ImageDataModule):
    """Batches of 20: every second image of each on the one device, the others on the other."""

    def __init__(self, devices, meta_split):
        splits = {"val_split": 0.2, "meta_split": meta_split}
        super().__init__(LabelHierarchy((2, 3)), batch_size=20 // devices, crop_padding=0, flip=False, **splits)

    def load_split(self, train):
        random = torch.Generator().manual_seed(0)
        primary = torch.randint(2, (100,), generator=random)
        return ImageSet(torch.randint(256, (100, 3, 8, 8), generator=random, dtype=torch.uint8), primary)


STEPS = {
    "one step": (MAXLModule, {}, 0.0),
    "one step, normalised": (MAXLModule, {"normalize_hypergradient": True}, 0.0),
    "fused": (MAXLModule, {"fused": True}, 0.0),
    "fused, normalised": (MAXLModule, {"fused": True, "normalize_hypergradient": True}, 0.0),
    "fused, clipped": (MAXLModule, {"fused": True, "clip_grad_norm": 0.01, "label_clip_grad_norm": 0.01}, 0.0),
    "two steps, held out": (MAXLModule, {"lookahead_steps": 2}, 0.5),
    "two steps, normalised": (MAXLModule, {"lookahead_steps": 2, "normalize_hypergradient": True}, 0.0),
    "Neumann": (AuxiLearnModule, {"hypergradient": NeumannGradient(eta=0.1), "label_interval": 1}, 0.5),
}


def fit_images(devices=2):
    states = {}
    for method, (module, arguments, meta_split) in STEPS.items():
        L.seed_everything(0, verbose=False)
        model = module(
            (2, 3),
            trunk=Trunk(),
            labeler=LabelNetwork(weighted=True, trunk=Trunk()),
            entropy_weight=0.2,
            optimizer=partial(SGD, lr=0.5, momentum=0.9, weight_decay=0.1),
            label_optimizer=partial(SGD, lr=0.1, momentum=0.9),
            **arguments,
        )
        states[method] = fitted(model, Images(devices, meta_split), devices, precision="64-true")
    return states


def test_two_devices_step_as_one_does_on_all_their_images(tmp_path):
    devices, whole = on_two_devices(fit_images, tmp_path), fit_images(devices=1)
    moves = {(method, name): move for method in STEPS for name, (_, move) in whole[method].items()}
    assert [at for at, move in moves.items() if move.abs().max() < 1e-7] == []
    for device in devices:
        own = {(method, name): device[method][name][1] for method, name in moves}
        assert [at for at, move in moves.items() if not torch.allclose(own[at], move, rtol=1e-9, atol=1e-12)] == []


def means():
    own = dist.get_rank() + 1.0
    tensors = {
        "scalar": torch.tensor(own),
        "strided": torch.full((3, 2), own, dtype=torch.float64).T,
        "half": torch.full((4,), own, dtype=torch.bfloat16),
        "empty": torch.full((1, 0, 2), own),
    }
    return tensors, mean_over_devices(tensors)


def test_a_mean_over_devices_keeps_names_shapes_and_dtypes(tmp_path):
    for tensors, averaged in on_two_devices(means, tmp_path):
        assert list(averaged) == list(tensors)
        for name, tensor in tensors.items():
            torch.testing.assert_close(averaged[name], torch.full_like(tensor, 1.5), rtol=0, atol=0)


def test_the_command_line_trains_and_tests_on_two_devices(tmp_path):
    configs = Path(__file__).parents[2] / "configs"
    words = [sys.executable, "-m", "auxlight", "fit"]
    for name in ("maxl", "data/digits", "small"):
        words += ["--config", str(configs / f"{name}.yaml")]
    words += [
        "--trainer.devices=2",
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--model.width=0.0625",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    run = subprocess.run(
        words, cwd=tmp_path, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "Tested:" in run.stdout and run.stdout.count("TensorBoard:") == 1
