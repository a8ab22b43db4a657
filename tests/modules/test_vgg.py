import pytest
import torch
from torch import nn

from auxlight import VGG, HumanLabels, InputError, LabelHierarchy, MultiHeadVGG


def linear_sizes(module: nn.Module) -> list[tuple[int, int]]:
    return [(m.in_features, m.out_features) for m in module.modules() if isinstance(m, nn.Linear)]


def test_the_papers_network():
    module = MultiHeadVGG(LabelHierarchy.build(20, 5), labeler=HumanLabels())
    assert isinstance(module.trunk, VGG)
    assert (module.trunk.depth, module.trunk.width, module.trunk.in_channels) == (16, 1.0, 3)
    assert any(isinstance(m, nn.BatchNorm2d) for m in module.trunk.modules())
    assert linear_sizes(module.primary_head) == [(512, 512), (512, 20)]
    assert linear_sizes(module.tasks[0].head) == [(512, 512), (512, 100)]
    assert (module.aux_weight, module.focal_gamma) == (1.0, 2.0)
    optimizer = module.configure_optimizers()
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0, 0)


def test_every_size_is_an_argument():
    module = MultiHeadVGG((2, 3), depth=13, width=0.125, in_channels=1, head_dim=24, labeler=HumanLabels())
    assert (module.trunk.depth, module.feature_dim) == (13, 64)
    assert linear_sizes(module.primary_head) == [(64, 24), (24, 2)]
    assert linear_sizes(module.tasks[0].head) == [(64, 24), (24, 5)]
    assert module(torch.randn(2, 1, 32, 32)).shape == (2, 2)


def test_every_choice_reaches_the_classifier():
    made = []

    def scheduler(optimizer):
        made.append(torch.optim.lr_scheduler.StepLR(optimizer, 1))
        return made[-1]

    module = MultiHeadVGG(
        (2, 3),
        width=0.0625,
        labeler=HumanLabels(),
        aux_weight=4.0,
        focal_gamma=0.0,
        optimizer=lambda params: torch.optim.Adam(params, lr=0.3),
        scheduler=scheduler,
        scheduler_interval="step",
    )
    assert (module.aux_weight, module.focal_gamma, module.tasks[0].focal_gamma) == (4.0, 0.0, 0.0)
    configured = module.configure_optimizers()
    assert isinstance(configured["optimizer"], torch.optim.Adam)
    assert configured["lr_scheduler"]["scheduler"] is made[0]
    assert configured["lr_scheduler"]["interval"] == "step"


def test_unsuitable_depth():
    with pytest.raises(InputError, match="`depth` must be one of"):
        MultiHeadVGG((2, 3), depth=17)
