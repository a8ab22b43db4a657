"""Rules on two devices."""

import copy

import lightning as L
import torch
from torch.optim import SGD
from torchjd.aggregation import MGDA, PCGrad

from auxlight import (
    ARML,
    Aggregation,
    AuxiliaryClassifier,
    AuxiNash,
    CombinationNetwork,
    DynamicWeightAverage,
    GradientCosine,
    GradNorm,
    HumanLabels,
    ImageDataModule,
    LabelHierarchy,
    OnlineAuxiliary,
    PlaceTask,
    RandomWeights,
    SLGrad,
    UncertaintyWeighting,
)
from auxlight.datamodules.images import ImageSet
from tests.devices import on_two_devices
from tests.modules.test_ddp import TRAINER, Trunk


class Images(ImageDataModule):
    """Batches of 20: every second image of each on the one device, the others on the other."""

    def __init__(self, devices):
        super().__init__(
            LabelHierarchy((3, 3)), batch_size=20 // devices, crop_padding=0, flip=False, val_split=0.2, meta_split=0.5
        )

    def load_split(self, train):
        random = torch.Generator().manual_seed(0)
        auxiliary = torch.randint(6, (100,), generator=random)
        image = torch.randint(256, (100, 3, 8, 8), generator=random, dtype=torch.uint8)
        return ImageSet(image, auxiliary // 3, auxiliary)


RULES = {
    "kendall": UncertaintyWeighting,
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "rlw": RandomWeights,
    "combination": lambda: CombinationNetwork((3,), interval=1),
    "combination of means": lambda: CombinationNetwork((3,), per_sample=False, interval=1),
    "gcs": lambda: GradientCosine(weighted=True),
    "ol_aux": lambda: OnlineAuxiliary(horizon=2),
    "arml": ARML,
    "slgrad": SLGrad,
    "auxinash": lambda: AuxiNash(interval=1, held_out=True),
    "PCGrad": lambda: Aggregation(PCGrad()),
    "MGDA": lambda: Aggregation(MGDA()),
}


def fit_all(devices=2):
    states = {}
    for name, make in RULES.items():
        L.seed_everything(0, verbose=False)
        module = AuxiliaryClassifier(
            (3, 3),
            Trunk(),
            labeler=HumanLabels(),
            tasks=[PlaceTask()],
            combiner=make(),
            optimizer=lambda params: SGD(params, lr=0.5, momentum=0.9),
        )
        before = copy.deepcopy(module.state_dict())
        settings = TRAINER | {"max_epochs": 4, "check_val_every_n_epoch": 4, "precision": "64-true"}
        L.Trainer(devices=devices, strategy="ddp" if devices > 1 else "auto", **settings).fit(module, Images(devices))
        states[name] = {
            key: (value, value - before[key]) for key, value in module.state_dict().items() if torch.is_tensor(value)
        }
    return states


def test_devices_stay_equal_and_step_as_one_does_on_all_their_images(tmp_path):
    """A rule that combined each device's own gradients, and averaged afterwards, would move otherwise."""
    one, other = on_two_devices(fit_all, tmp_path)
    whole = fit_all(devices=1)
    for rule, state in whole.items():
        moving = [key for key, (_, move) in state.items() if "combiner" not in key]
        assert [(rule, key) for key in moving if not state[key][1].any()] == []
        for key, (value, _) in state.items():
            assert torch.equal(one[rule][key][0], other[rule][key][0]), (rule, key)
            assert torch.allclose(one[rule][key][0].double(), value.double(), rtol=1e-8, atol=1e-11), (rule, key)
