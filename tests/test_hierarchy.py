import random

import numpy as np
import pytest
import torch

from auxlight import InputError, LabelHierarchy

PSIS = [(5, 5, 5), (2, 3), (1, 4, 2, 1), (7,), (1, 1)]


def blocks(psi: tuple[int, ...]) -> list[list[int]]:
    """The auxiliary classes of each primary class, dealt out one after another."""
    result, label = [], 0
    for size in psi:
        block = []
        for _ in range(size):
            block.append(label)
            label += 1
        result.append(block)
    return result


@pytest.mark.parametrize("psi", PSIS)
def test_tables_by_brute_force(psi):
    hierarchy, expected = LabelHierarchy(psi), blocks(psi)
    assert hierarchy.num_primary == len(expected)
    assert hierarchy.num_auxiliary == sum(len(block) for block in expected)
    assert hierarchy.sizes.tolist() == [len(block) for block in expected]
    assert hierarchy.starts.tolist() == [block[0] for block in expected]
    assert hierarchy.parents.tolist() == [y for y, block in enumerate(expected) for _ in block]
    assert hierarchy.mask.dtype == torch.bool
    assert hierarchy.mask.tolist() == [[k in block for k in range(sum(psi))] for block in expected]


@pytest.mark.parametrize("psi", PSIS)
def test_global_and_relative_round_trip(psi):
    hierarchy = LabelHierarchy(psi)
    for y, block in enumerate(blocks(psi)):
        for place in range(-9, 20):
            label = hierarchy.to_global(torch.tensor([y]), torch.tensor([place]))
            assert label.tolist() == [block[place % len(block)]]
            assert hierarchy.to_relative(label).tolist() == [place % len(block)]


def test_global_labels_of_a_mixed_batch():
    hierarchy = LabelHierarchy((2, 3))
    label = hierarchy.to_global(torch.tensor([1, 0, 1, 0]), torch.tensor([2, 1, 4, 2]))
    assert label.tolist() == [4, 1, 3, 0] and label.dtype == torch.int64
    assert hierarchy.to_relative(label).tolist() == [2, 1, 1, 0]


def test_build_and_of():
    assert LabelHierarchy.build(3, 5) == LabelHierarchy((5, 5, 5))
    assert LabelHierarchy.build(2, [2, 3]) == LabelHierarchy((2, 3))
    hierarchy = LabelHierarchy((2, 3))
    assert LabelHierarchy.of(hierarchy) is hierarchy
    assert LabelHierarchy.of([2, 3]) == hierarchy
    assert LabelHierarchy([2, 3]).psi == (2, 3)  # JSON and YAML have lists
    assert LabelHierarchy.build(2, list(np.bincount([0, 0, 1, 1, 1]))) == hierarchy
    assert hash(LabelHierarchy([2, 3])) == hash(hierarchy)


@pytest.mark.parametrize("seed", range(5))
def test_from_parents_by_brute_force(seed):
    rng = random.Random(seed)
    parents = [0, 1, 2, 3] + [rng.randrange(4) for _ in range(9)]
    rng.shuffle(parents)
    hierarchy, block_index = LabelHierarchy.from_parents(parents)
    assert hierarchy.psi == tuple(parents.count(y) for y in range(4))
    in_block_order = [child for y in range(4) for child, parent in enumerate(parents) if parent == y]
    assert [in_block_order[k] for k in block_index.tolist()] == list(range(13))
    assert hierarchy.parents[block_index].tolist() == parents


@pytest.mark.parametrize("psi", [(), (0,), (2, -1), (2.0, 3), (True, 2), ("2",)])
def test_wrong_sizes(psi):
    with pytest.raises(InputError, match="`psi` must be a positive integer or a list"):
        LabelHierarchy(psi)


@pytest.mark.parametrize(("num_primary", "psi"), [(2, 0), (2, -3), (2, True), (0, 5)])
def test_build_refuses_wrong_sizes(num_primary, psi):
    with pytest.raises(InputError, match="`psi` must be a positive integer"):
        LabelHierarchy.build(num_primary, psi)


@pytest.mark.parametrize("psi", [[2], [2, 3, 4], []])
def test_build_refuses_a_list_of_another_length(psi):
    with pytest.raises(InputError, match=f"a list of 2, one per primary class. Found a list of {len(psi)}"):
        LabelHierarchy.build(2, psi)


def test_from_parents_refuses_a_childless_class():
    with pytest.raises(InputError, match="Found none for primary class 1"):
        LabelHierarchy.from_parents([0, 2, 2])


@pytest.mark.parametrize("parents", [[], [0, -1, 1]])
def test_from_parents_refuses_what_is_no_list_of_classes(parents):
    with pytest.raises(InputError):
        LabelHierarchy.from_parents(parents)
