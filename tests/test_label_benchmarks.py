"""The measures of the benchmarks that look into labels, against brute force and planted structure."""

from pathlib import Path
from typing import Any

import pytest
import torch

from auxlight import Batch, HumanLabels, LabelHierarchy, RandomLabels

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def votes(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import label_votes

    return label_votes


@pytest.fixture
def duel(votes: Any) -> Any:
    import label_duel

    return label_duel


def test_a_vote_counts_the_worse_labels_of_the_block(votes: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    hierarchy = LabelHierarchy((4, 2, 6))
    primary = torch.randint(3, (50,), generator=generator)
    chosen = hierarchy.to_global(primary, torch.randint(6, (50,), generator=generator))
    slopes = torch.randint(-3, 3, (50, 12), generator=generator).float()  # with ties
    shares = []
    for slope, label, y in zip(slopes.tolist(), chosen.tolist(), primary.tolist(), strict=True):
        others = [k for k in range(12) if hierarchy.parents[k] == y and k != label]
        worse = sum(1.0 if slope[k] > slope[label] else 0.5 if slope[k] == slope[label] else 0.0 for k in others)
        shares.append(worse / len(others))
    found = votes.vote(slopes, chosen, hierarchy.mask[primary])
    assert found == pytest.approx(sum(shares) / len(shares), abs=1e-6)
    best = slopes.scatter(1, chosen[:, None], -10.0)
    assert votes.vote(best, chosen, hierarchy.mask[primary]) == 1.0


def test_kinship_is_one_for_groups_of_equals_and_nothing_for_noise(votes: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    hierarchy = LabelHierarchy((5, 5))
    human = torch.randint(10, (4000,), generator=generator)
    primary = hierarchy.parents[human]
    block = hierarchy.mask[primary]
    noise = torch.randn(4000, 10, generator=generator)
    planted = torch.randn(10, 10, generator=generator)[human] + 100.0 * torch.randn(4000, 1, generator=generator)
    assert votes.kinship(planted, primary, human, block) == pytest.approx(1.0, abs=1e-6)
    assert abs(votes.kinship(noise, primary, human, block)) < 0.01
    between = votes.kinship(planted + 3 * noise, primary, human, block)
    assert 0.02 < between < 0.5


def test_labellings_side_by_side_do_not_share_a_class(duel: Any) -> None:
    small = LabelHierarchy((3, 2))
    big = LabelHierarchy((6, 4))
    human = torch.arange(5)
    batch = Batch(torch.zeros(5, 1, 2, 2), small.parents[human], human, torch.arange(5))
    both = duel.SideBySide({"human": HumanLabels(), "random": RandomLabels(seed=0)}, small)
    both.bind(big, torch.nn.Flatten(), 4)
    target = both(batch, torch.zeros(5, 4))
    assert target.probabilities.sum(1).tolist() == [1.0] * 5
    assert set(target.probabilities.unique().tolist()) == {0.0, 0.5}
    assert not target.probabilities.masked_select(~big.mask[batch.primary]).any()
    assert both.place.flatten().sort().values.tolist() == list(range(10))  # a place for each
    assert both.chosen(batch, torch.zeros(5, 4))[0].tolist() == [0, 1, 2, 6, 7]
