import math

import pytest
import torch

from auxlight import InputError, LabelHierarchy
from auxlight.labelers import LabelActions

PSI = (2, 5, 1)
BLOCKS = {0: [0, 1], 1: [2, 3, 4, 5, 6], 2: [7]}
SHARPNESS = [0.5, 1.0, 3.0, math.inf]


def expected_row(label: int, primary: int, sharpness: float) -> list[float]:
    """What the agent says, softened inside the block; a label from elsewhere says nothing."""
    block = BLOCKS[primary]
    if label not in block:
        return [1 / len(block) if k in block else 0.0 for k in range(8)]
    others = math.exp(-sharpness)
    total = 1 + others * (len(block) - 1)
    return [(1 / total if k == label else others / total) if k in block else 0.0 for k in range(8)]


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_global_labels(sharpness):
    actions = LabelActions(LabelHierarchy(PSI), sharpness=sharpness)
    assert actions.sizes == (8,)
    pairs = [(label, primary) for label in range(8) for primary in range(3)]
    target = actions.target(torch.tensor([[label] for label, _ in pairs]), torch.tensor([y for _, y in pairs]))
    for (label, primary), row in zip(pairs, target.probabilities.tolist(), strict=True):
        assert row == pytest.approx(expected_row(label, primary, sharpness), abs=1e-6)
    assert target.weight.tolist() == [1] * len(pairs)


@pytest.mark.parametrize("sharpness", SHARPNESS)
def test_relative_labels_count_modulo_the_block(sharpness):
    actions = LabelActions(LabelHierarchy(PSI), block_relative=True, sharpness=sharpness)
    assert actions.sizes == (5,)
    pairs = [(place, primary) for place in range(5) for primary in range(3)]
    target = actions.target(torch.tensor([[place] for place, _ in pairs]), torch.tensor([y for _, y in pairs]))
    for (place, primary), row in zip(pairs, target.probabilities.tolist(), strict=True):
        block = BLOCKS[primary]
        assert row == pytest.approx(expected_row(block[place % len(block)], primary, sharpness), abs=1e-6)


def test_infinite_sharpness_is_exactly_one_hot():
    actions = LabelActions(LabelHierarchy(PSI), sharpness=math.inf)
    target = actions.target(torch.tensor([[4], [0], [3]]), torch.tensor([1, 0, 0]))
    assert target.probabilities[:2].tolist() == [[float(k == 4) for k in range(8)], [float(k == 0) for k in range(8)]]
    assert target.probabilities[2].tolist() == [0.5, 0.5] + [0] * 6  # outside: uniform, not NaN


def test_papers_targets():
    actions = LabelActions(LabelHierarchy((5, 5)))
    target = actions.target(torch.tensor([[6], [6]]), torch.tensor([1, 0]))
    assert target.probabilities[0].tolist() == pytest.approx([0] * 5 + [0.149, 0.405, 0.149, 0.149, 0.149], abs=5e-4)
    assert target.probabilities[1].tolist() == pytest.approx([0.2] * 5 + [0] * 5)


@pytest.mark.parametrize("block_relative", [False, True])
def test_each_sample_has_its_own_weight(block_relative):
    """All 21 levels in one batch: a weight shared by the batch, or a (B, B) product, cannot pass."""
    actions = LabelActions(LabelHierarchy(PSI), 21, block_relative)
    assert actions.sizes == ((5, 21) if block_relative else (8, 21))
    levels = torch.randperm(21, generator=torch.Generator().manual_seed(0))
    target = actions.target(torch.stack([torch.zeros_like(levels), levels], 1), torch.ones_like(levels))
    assert target.weight.shape == (21,)
    assert target.weight.tolist() == pytest.approx([2 ** (10 * (k / 20) - 5) for k in levels.tolist()], rel=1e-5)
    assert target.weight[levels.argsort()][[0, 10, 20]].tolist() == [1 / 32, 1, 32]


def test_two_levels_are_the_ends():
    target = LabelActions(LabelHierarchy(PSI), 2).target(torch.tensor([[0, 0], [0, 1]]), torch.tensor([0, 0]))
    assert target.weight.tolist() == [1 / 32, 32]


@pytest.mark.parametrize("levels", [1, 0, -3])
def test_too_few_levels(levels):
    with pytest.raises(InputError, match=f"`weight_levels` must be at least 2.*Found weight_levels={levels}"):
        LabelActions(LabelHierarchy(PSI), levels)


@pytest.mark.parametrize("sharpness", [0.0, -1.0, math.nan])
def test_sharpness_out_of_range(sharpness):
    with pytest.raises(InputError, match="`sharpness` must be positive"):
        LabelActions(LabelHierarchy(PSI), sharpness=sharpness)
