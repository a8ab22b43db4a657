"""What the benchmarks that look into labels measure, against brute force, finite differences and planted structure."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from auxlight import AuxiliaryClassifier, Batch, ClusterLabels, HumanLabels, LabelHierarchy, RandomLabels, UniformLabels
from auxlight.modules.joint_losses import JointLosses

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import label_gradient

    return label_gradient


@pytest.fixture
def side_by_side(measures: Any) -> Any:
    import label_duel

    return label_duel.SideBySide


def batch_of(human: Tensor, hierarchy: LabelHierarchy, seed: int = 0, first: int = 0) -> Batch:
    image = torch.randn(len(human), 1, 2, 2, generator=torch.Generator().manual_seed(seed))
    return Batch(image, hierarchy.parents[human], human, torch.arange(first, first + len(human)))


class Trunk(nn.Sequential):
    feature_dim = 4

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(4, 4), nn.Tanh())


@pytest.mark.parametrize("lr", [None, 1e-4])
def test_the_gradient_is_that_of_a_step_with_a_little_more_of_a_label(measures: Any, lr: float | None) -> None:
    torch.manual_seed(0)
    hierarchy = LabelHierarchy((3, 2))
    module = AuxiliaryClassifier(
        hierarchy, trunk=Trunk(), labeler=UniformLabels(), focal_gamma=0.0, aux_weight=2.0
    ).double()
    batch, meta = (batch_of(torch.arange(5), hierarchy, seed) for seed in (1, 2))
    batch, meta = (one._replace(image=one.image.double()) for one in (batch, meta))
    optimizer = SGD(module.parameters(), lr=0.3)
    found = measures.gradient(JointLosses(module), module, [batch], [meta], optimizer, lr)

    def primary_after(image: int, label: int, more: float) -> float:
        network = copy.deepcopy(module)
        target = hierarchy.mask[batch.primary].double()
        target /= target.sum(1, keepdim=True)
        target[image, label] += more
        features = network.trunk(batch.image)
        loss = nn.functional.cross_entropy(network.primary_head(features), batch.primary)
        logits = network.labelled_task.head(features)  # type: ignore[union-attr]
        loss = loss - 2.0 * (target * logits.log_softmax(1)).sum(1).mean()
        loss.backward()
        SGD(network.parameters(), lr=lr or 0.3).step()
        with torch.no_grad():
            return float(nn.functional.cross_entropy(network.primary_head(network.trunk(meta.image)), meta.primary))

    for image in range(5):
        for label in hierarchy.mask[batch.primary[image]].nonzero()[:, 0].tolist():
            slope = (primary_after(image, label, 1e-4) - primary_after(image, label, -1e-4)) / 2e-4
            assert float(found[image, label]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_lower_slope_is_preferred(measures: Any) -> None:
    one, other = torch.tensor([-1.0, 3.0, 0.0, 5.0, 2.0, 0.0]), torch.tensor([0.0, 2.0, 0.0, 0.0, 9.0, 1.0])
    # Differences 1, −1, 0, −5, 7, 1: by image three of six and a tie; batches of means 1, −2 and 4.
    assert measures.preferred(one, other, [1, 3, 2]) == pytest.approx((3.5 / 6, 2 / 3))
    assert measures.preferred(other, one, [1, 3, 2]) == pytest.approx((2.5 / 6, 1 / 3))


def test_known_looks_at_its_places_alone(measures: Any) -> None:
    logits = torch.tensor([[9.0, 1.0, 2.0, 0.0], [9.0, 2.0, 1.0, 0.0], [0.0, 0.0, 1.0, 9.0]])
    places = torch.tensor([[False, True, True, False]] * 3)
    assert measures.known(logits, torch.tensor([2, 2, 2]), places) == pytest.approx(2 / 3)


def test_who_judges_is_not_judged(measures: Any) -> None:
    hierarchy = LabelHierarchy((2, 1))
    for count in (5, 40):
        batches = [batch_of(torch.arange(3), hierarchy, first=3 * number) for number in range(count)]
        asked, labelled = (
            {int(i) for batch in part for i in batch.index} for part in measures.unseen(batches, seed=count)
        )
        assert len(asked) == 3 * min(measures.HELD_OUT, count // 2)
        assert labelled and not asked & labelled


def test_shuffled_labels_stay_in_their_class(measures: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    hierarchy = LabelHierarchy((40, 3, 30))
    human = torch.randint(73, (3000,), generator=generator)
    primary = hierarchy.parents[human]
    mixed = measures.shuffled(human, primary, seed=1)
    assert torch.equal(hierarchy.parents[mixed], primary)
    assert torch.equal(mixed.bincount(), human.bincount())
    kept = (mixed == human).float()[primary == 0].mean()
    assert abs(float(kept) - 1 / 40) < 0.02
    assert not torch.equal(mixed, measures.shuffled(human, primary, seed=2))


def test_labellings_side_by_side_do_not_share_a_class(side_by_side: Any) -> None:
    small, big = LabelHierarchy((3, 2)), LabelHierarchy((9, 6))
    batch = batch_of(torch.arange(5), small)
    parts = {"human": HumanLabels(), "random": RandomLabels(seed=0), "cluster": ClusterLabels(start_epoch=1, seed=0)}
    labeler = side_by_side(parts, small)
    trunk = Trunk()
    labeler.bind(big, trunk, 4)
    assert labeler.place.flatten().sort().values.tolist() == list(range(15))  # a place for each
    assert labeler.chosen(batch, torch.zeros(5, 4))[0][0].tolist() == [0, 1, 2, 9, 10]
    for epoch, active in ((0, 2), (1, 3)):  # there are no clusters in epoch 0
        labeler.before_step(epoch, 2, trunk, lambda: [batch])
        shares = labeler(batch, torch.zeros(5, 4)).probabilities
        assert shares.sum(1).tolist() == pytest.approx([1.0] * 5)
        assert sorted(shares[0].unique().tolist()) == pytest.approx([0.0, 1 / active])
        assert int((shares > 0).sum()) == 5 * active
        assert not shares.masked_select(~big.mask[batch.primary]).any()
