import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from auxlight import Batch, LabelHierarchy, RandomLabels

PSI = (2, 5, 1)


def make(**arguments) -> RandomLabels:
    labeler = RandomLabels(**arguments)
    labeler.bind(LabelHierarchy(PSI), nn.Identity(), 4)
    return labeler


def label(labeler: RandomLabels, index: Tensor, primary: Tensor | int = 1) -> Tensor:
    primary = torch.full_like(index, primary) if isinstance(primary, int) else primary
    target = labeler(Batch(torch.zeros(len(index), 1, 1, 1), primary, None, index), torch.zeros(len(index), 3))
    assert torch.equal(target.probabilities.sum(1), torch.ones(len(index)))
    assert torch.equal(target.probabilities.max(1).values, torch.ones(len(index)))
    assert torch.equal(target.weight, torch.ones(len(index)))
    return target.probabilities.argmax(1)


def is_uniform(labels: Tensor, choices: list[int]) -> bool:
    expected = len(labels) / len(choices)
    statistic = sum(((labels == k).sum().item() - expected) ** 2 / expected for k in choices)
    return statistic < chi2.ppf(0.9999, len(choices) - 1)


def test_an_image_keeps_its_label_in_any_batch():
    labeler, index = make(seed=0), torch.arange(200)
    first = label(labeler, index)
    assert torch.equal(label(labeler, index), first)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(label(labeler, order), first[order])
    assert label(labeler, index[77:78]).tolist() == first[77:78].tolist()
    assert torch.equal(label(make(seed=0), index), first)


def test_fresh_labels_differ_between_calls():
    labeler, index = make(fixed=False, seed=0), torch.arange(2000)
    draws = [label(labeler, index) for _ in range(3)]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (draws[a] == draws[b]).float().mean().item() == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize("fixed", [True, False])
def test_seeds_differ(fixed):
    index = torch.arange(2000)
    agreement = label(make(fixed=fixed, seed=0), index) == label(make(fixed=fixed, seed=1), index)
    assert agreement.float().mean().item() == pytest.approx(0.2, abs=0.05)


def test_default_seed_is_the_runs(monkeypatch):
    index = torch.arange(100)
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert torch.equal(label(make(), index), label(make(seed=7), index))
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert not torch.equal(label(make(), index), label(make(seed=7), index))


@pytest.mark.parametrize("seed", [0, 1, 12345])
@pytest.mark.parametrize("start", [0, 10**9])
def test_uniform_over_the_block(seed, start):
    index = torch.arange(start, start + 5000)
    labels = label(make(seed=seed), index)
    assert is_uniform(labels, [2, 3, 4, 5, 6])
    assert is_uniform(5 * labels[:-1] + labels[1:], [5 * a + b for a in range(2, 7) for b in range(2, 7)])  # neighbours
    assert is_uniform(label(make(seed=seed), index, primary=0), [0, 1])


def test_fresh_draws_of_one_image_are_uniform():
    labeler = make(fixed=False, seed=0)
    labels = torch.cat([label(labeler, torch.tensor([3])) for _ in range(500)])
    assert is_uniform(labels, [2, 3, 4, 5, 6])


@pytest.mark.parametrize("fixed", [True, False])
def test_always_in_the_block(fixed):
    generator = torch.Generator().manual_seed(0)
    primary = torch.randint(3, (1000,), generator=generator)
    labels = label(make(fixed=fixed, seed=0), torch.arange(1000), primary)
    block = {0: {0, 1}, 1: {2, 3, 4, 5, 6}, 2: {7}}
    for y, members in block.items():
        assert set(labels[primary == y].tolist()) == members


@pytest.mark.parametrize("fixed", [True, False])
def test_resumes(fixed):
    labeler, index = make(fixed=fixed, seed=0), torch.arange(100)
    label(labeler, index)
    label(labeler, index)
    resumed = make(fixed=fixed, seed=0)
    resumed.load_state_dict(labeler.state_dict())
    for _ in range(2):
        assert torch.equal(label(resumed, index), label(labeler, index))
