"""Parts of a module, the user's own among them: what they must be and return, and what trains them."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.optim import SGD

from auxlight import (
    AuxiliaryClassifier,
    AuxiliaryTarget,
    AuxiliaryTask,
    DigitsDataModule,
    HumanLabels,
    InputError,
    Labeler,
    LabelNetwork,
    UniformLabels,
    WeightedSum,
)
from auxlight.checkpoints import load_network
from tests.modules.test_combiners import Trunk, fit, make
from tests.quiet import TRAINER


def test_a_label_network_that_nothing_trains_is_refused():
    with pytest.raises(InputError, match=r"LabelNetwork needs a module that trains it.*`untrained: true`"):
        fit(make(None, LabelNetwork(trunk=Trunk())))
    control = LabelNetwork(trunk=Trunk(), untrained=True)
    module = make(None, control)
    before = {name: value.clone() for name, value in control.named_parameters()}
    fit(module)
    assert before and all(torch.equal(value, before[name]) for name, value in control.named_parameters())


def test_a_labeler_belongs_to_one_module():
    labeler = HumanLabels()
    make(None, labeler)
    with pytest.raises(InputError, match="HumanLabels that is bound to another"):
        make(None, labeler)


def test_the_modules_classes_are_the_datas():
    module = AuxiliaryClassifier((3, 3), Trunk(), labeler=UniformLabels())
    with pytest.raises(InputError, match=r"that of the data, \[5, 5\].*Found \[3, 3\]"):
        fit(module)
    with pytest.raises(InputError, match=r"Found \[5, 5, 5\]"):
        fit(AuxiliaryClassifier((5, 5, 5), Trunk()))
    fit(AuxiliaryClassifier((1, 1), Trunk()))  # the single task has no use for blocks


class Named(DigitsDataModule):
    """Digits by other names."""

    @property
    def class_names(self):
        return ["one", "other"]


def test_a_checkpoint_is_of_its_classes(tmp_path):
    """Of as many others, too, on which its network would be tested without a word."""
    module = make(None, HumanLabels())
    fit(module).save_checkpoint(tmp_path / "end.ckpt")
    L.Trainer(**TRAINER).validate(module, DigitsDataModule(), str(tmp_path / "end.ckpt"), verbose=False)
    with pytest.raises(InputError, match=r"2 \(one, other\) with psi=5. Found 2 \(even, odd\) with psi=5"):
        L.Trainer(**TRAINER).validate(module, Named(), str(tmp_path / "end.ckpt"), verbose=False)
    other = AuxiliaryClassifier((4, 5), Trunk(), labeler=UniformLabels())
    with pytest.raises(InputError, match=r"2 with psi=\[4, 5\]. Found 2 \(even, odd\) with psi=5"):
        load_network(other, str(tmp_path / "end.ckpt"))


class Learned(Labeler):
    """With a layer of its own, whose labels carry its graph."""

    def bind(self, hierarchy, trunk, feature_dim):
        super().bind(hierarchy, trunk, feature_dim)
        self.layer = nn.Linear(feature_dim, hierarchy.num_auxiliary)

    def forward(self, batch, features):
        logits = self.layer(features).masked_fill(~self.mask[batch.primary], -torch.inf)
        return AuxiliaryTarget(logits.softmax(1), torch.ones(len(features)))


def test_the_auxiliary_loss_trains_no_labeler():
    """It would learn to say what is easy to say."""
    module = make(None, Learned(), optimizer=lambda params: SGD(params, 0.5))
    before = module.labelled_task.labeler.layer.weight.clone()
    fit(module)
    assert torch.equal(module.labelled_task.labeler.layer.weight, before)


class Says(Labeler):
    """Whatever it is told to."""

    def __init__(self, what):
        super().__init__()
        self.what = what

    def forward(self, batch, features):
        return self.what(batch)


@pytest.mark.parametrize(
    ("what", "found"),
    [
        (lambda batch: batch.primary, "Found a Tensor"),
        (lambda batch: AuxiliaryTarget(torch.ones(len(batch.primary), 10), 1.0), r"Found \(\(40, 10\), 'float'\)"),
        (lambda batch: AuxiliaryTarget(torch.ones(40, 10) / 10, torch.ones(40, 1)), r"\(40, 1\)"),
        (lambda batch: AuxiliaryTarget(torch.ones(40, 10), torch.ones(40)), "a sum of 10"),
        (lambda batch: AuxiliaryTarget(torch.eye(10)[:1].repeat(40, 1) * 3 - 0.2, torch.ones(40)), "Found -0.2"),
    ],
)
def test_what_a_labeler_must_say(what, found):
    with pytest.raises(InputError, match=f"`forward` of Says must return an AuxiliaryTarget.*{found}"):
        fit(make(None, Says(what)))


class Returns(AuxiliaryTask):
    """Something, and skips the base's `__init__`."""

    def __init__(self, what):
        nn.Module.__init__(self)
        self.what = what

    def forward(self, trunk, features, batch):
        return self.what(features.square().mean(1))


@pytest.mark.parametrize(
    "what", [lambda losses: losses, lambda losses: (losses.mean(), torch.ones(())), lambda losses: (losses, 1.0)]
)
def test_what_a_task_must_return(what):
    with pytest.raises(InputError, match=r"`forward` of Returns must return losses \(n,\) and weights \(n,\)"):
        fit(make(None, tasks=[Returns(what)]))


def test_a_task_may_return_a_list():
    fit(make(None, tasks=[Returns(lambda losses: [losses, torch.ones_like(losses)])]))


def test_what_has_no_weight_needs_no_probabilities():
    def none_for_the_first(batch):
        weight = torch.arange(len(batch.primary)).clamp(max=1).float()
        return AuxiliaryTarget(torch.eye(10)[:1] * weight[:, None], weight)

    fit(make(None, Says(none_for_the_first)))


def test_a_task_without_the_bases_constructor_has_weight_one():
    fit(make(None, tasks=[Returns(lambda losses: (losses, torch.ones_like(losses)))]))


class Vector(WeightedSum):
    def forward(self, losses, context):
        return losses.means()


class Mean(AuxiliaryClassifier):
    def primary_losses(self, logits, batch):
        return super().primary_losses(logits, batch).mean()


def test_what_own_losses_and_rules_must_return():
    with pytest.raises(InputError, match=r"`combiner` must return one number.*\(2,\)"):
        fit(make(Vector(), HumanLabels()))
    with pytest.raises(InputError, match=r"`primary_losses` must return a loss for each image.*shape \(\) for 40"):
        fit(Mean((5, 5), Trunk()))


def test_a_labeler_is_made():
    with pytest.raises(InputError, match="Found the class HumanLabels"):
        make(None, HumanLabels)
