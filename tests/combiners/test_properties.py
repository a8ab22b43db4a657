"""What holds of every rule."""

import pytest
import torch
from torch import nn
from torchjd import aggregation

from auxlight import (
    ARML,
    Aggregation,
    AuxiNash,
    CombinationNetwork,
    DynamicWeightAverage,
    GradientCosine,
    GradNorm,
    OnlineAuxiliary,
    RandomWeights,
    SLGrad,
    UncertaintyWeighting,
    WeightedSum,
)
from tests.combiners.problems import Network, names, step
from tests.combiners.test_rules import derivatives_of

RULES = {
    "sum": WeightedSum,
    "kendall": UncertaintyWeighting,
    "liebel": lambda: UncertaintyWeighting("liebel"),
    "gradnorm": GradNorm,
    "dwa": DynamicWeightAverage,
    "rlw": RandomWeights,
    "linear": CombinationNetwork,
    "mlp": lambda: CombinationNetwork((3,)),
    "gcs": GradientCosine,
    "weighted gcs": lambda: GradientCosine(weighted=True),
    "ol_aux": OnlineAuxiliary,
    "arml": ARML,
    "slgrad": SLGrad,
    "auxinash": lambda: AuxiNash(learn=False, max_norm=None),
    "CAGrad": lambda: Aggregation(aggregation.CAGrad(c=0.4)),
    "PCGrad": lambda: Aggregation(aggregation.PCGrad()),
    "GradDrop": lambda: Aggregation(aggregation.GradDrop()),
    "GradVac": lambda: Aggregation(aggregation.GradVac()),
    "MGDA": lambda: Aggregation(aggregation.MGDA()),
    "IMTL-G": lambda: Aggregation(aggregation.IMTLG()),
    "Aligned-MTL": lambda: Aggregation(aggregation.AlignedMTL()),
    "UPGrad": lambda: Aggregation(aggregation.UPGrad()),
    "FairGrad": lambda: Aggregation(aggregation.FairGrad(alpha=1.0)),
}
# Their draws, or their networks' first weights, belong to a task's place.
BY_CHANCE = ["rlw", "mlp", "PCGrad", "GradVac"]


def bound(name, tasks):
    torch.manual_seed(0)
    rule = RULES[name]()
    rule.bind(names(tasks))
    return rule.double()


def steps(rule, network, batches, scales=None):
    """The shared gradients of some steps, as epochs of one step each; scales are the losses'."""
    found = []
    for epoch, data in enumerate(batches):
        scaled = (data[0], data[1])

        def derivatives(direction, scaled=scaled):
            rows = derivatives_of(network, scaled)(direction)
            return rows if scales is None else [scale * row for scale, row in zip(scales, rows, strict=True)]

        context = network.context(epoch=epoch, derivatives=derivatives)
        found.append(step(network, rule, scaled, context, scales=scales)[0])
    return torch.stack(found)


@pytest.mark.parametrize("name", [name for name in RULES if name not in BY_CHANCE])
def test_auxiliary_tasks_in_another_order_make_the_same_updates(name):
    network, order = Network(4), [0, 3, 1, 2]
    batches = [network.data(seed) for seed in range(4)]
    plain = steps(bound(name, 4), network, batches)
    network.heads = nn.ModuleList([network.heads[m] for m in order])
    mixed = steps(bound(name, 4), network, [(x, y[:, order]) for x, y in batches])
    torch.testing.assert_close(mixed, plain, rtol=1e-4 if name in ("CAGrad", "FairGrad") else 1e-7, atol=1e-7)


@pytest.mark.parametrize("name", BY_CHANCE)
def test_rules_that_chance_belongs_to_are_those_that_order_matters_to(name):
    network, order = Network(4), [0, 3, 1, 2]
    batches = [network.data(seed) for seed in range(8)]
    plain = steps(bound(name, 4), network, batches)
    network.heads = nn.ModuleList([network.heads[m] for m in order])
    mixed = steps(bound(name, 4), network, [(x, y[:, order]) for x, y in batches])
    assert not torch.allclose(mixed, plain, rtol=1e-7)


HARD = {
    "huge and tiny": (1e12, 1e-12, 1.0),
    "all huge": (1e15, 1e15, 1e15),
    "all tiny": (1e-15, 1e-15, 1e-15),
    "opposed": (1.0, -1.0, 1.0),
    "without a gradient": (1.0, 0.0, 1.0),
    "no primary gradient": (0.0, 1.0, 1.0),
    "no gradient at all": (0.0, 0.0, 0.0),
}


@pytest.mark.parametrize("case", HARD)
@pytest.mark.parametrize("name", RULES)
def test_hard_gradients_stay_finite(name, case):
    network = Network(3)
    if case == "opposed":
        network.heads[1] = network.heads[0]
    batches = [network.data(seed) for seed in range(3)]
    if case == "opposed":
        batches = [(x, y[:, [0, 0, 2]]) for x, y in batches]
    found = steps(bound(name, 3), network, batches, scales=HARD[case])
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("factor", [1e-3, 50.0])
@pytest.mark.parametrize("name", ["auxinash", "arml", "IMTL-G"])
def test_the_scale_of_an_auxiliary_loss_does_not_matter_to(name, factor):
    network = Network(3)
    batches = [network.data(seed) for seed in range(3)]
    plain = steps(bound(name, 3), network, batches)
    scaled = steps(bound(name, 3), network, batches, scales=(1.0, factor, 1.0))
    if name == "IMTL-G":  # which fixes the direction alone
        plain, scaled = (nn.functional.normalize(rows, dim=1) for rows in (plain, scaled))
    torch.testing.assert_close(scaled, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("factor", [1e-3, 50.0])
@pytest.mark.parametrize("name", ["sum", "gcs", "weighted gcs", "linear", "dwa", "gradnorm"])
def test_a_task_pulls_as_hard_as_its_loss_is_scaled(name, factor):
    """In its first step, in which weights do not depend on lengths."""
    network = Network(3)
    batches = [network.data(0)]
    without, plain, scaled = (
        steps(bound(name, 3), network, batches, scales=(1.0, scale, 1.0))[0] for scale in (0.0, 1.0, factor)
    )
    torch.testing.assert_close(scaled - without, factor * (plain - without), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("name", RULES)
def test_all_losses_scaled_alike_leave_the_direction(name):
    if name in ("mlp", "kendall", "liebel", "ol_aux"):
        pytest.skip("not linear in the losses: a learned curve, a penalty, or weights that follow inner products")
    network = Network(3)
    batches = [network.data(0)]
    plain = steps(bound(name, 3), network, batches)[0]
    scaled = steps(bound(name, 3), network, batches, scales=(7.0, 7.0, 7.0))[0]
    cosine = nn.functional.cosine_similarity(plain, scaled, 0)
    assert float(cosine) == pytest.approx(1, abs=1e-4 if name in ("CAGrad", "FairGrad") else 1e-9)
