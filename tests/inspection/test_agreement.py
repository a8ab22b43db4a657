import math
from itertools import product

import pytest
import torch

from auxlight.inspection.agreement import agreement, effective_labels, shares


def test_shares_count_rows():
    table = shares(torch.tensor([0, 0, 2, 2, 2]), torch.tensor([1, 1, 0, 3, 3]), 3, 4)
    torch.testing.assert_close(table, torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [1 / 3, 0, 0, 2 / 3]]))


def test_images_without_a_label_have_the_last_column_and_no_agreement():
    primary, label = torch.tensor([0, 0, 1, 1]), torch.tensor([-1, 1, -1, -1])
    torch.testing.assert_close(shares(primary, label, 2, 4), torch.tensor([[0, 0.5, 0, 0.5], [0, 0, 0, 1.0]]))
    human = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    label = torch.where(torch.arange(8) % 2 == 0, human, -1)
    assert agreement(torch.zeros(8).long(), label, human) == pytest.approx((1, 1))


def test_effective_labels_are_one_for_one_and_psi_for_all():
    table = torch.tensor([[1, 0, 0, 0], [0.25] * 4, [0.5, 0.5, 0, 0]])
    torch.testing.assert_close(effective_labels(table), torch.tensor([1.0, 4.0, 2.0]))


def information(ours, theirs):
    """Normalised mutual information and adjusted Rand index from their definitions, by loops over labels and pairs."""
    n = len(ours)
    p = {
        pair: sum(both == pair for both in zip(ours, theirs, strict=True)) / n
        for pair in product(set(ours), set(theirs))
    }
    a = {x: ours.count(x) / n for x in ours}
    b = {y: theirs.count(y) / n for y in theirs}
    mutual = sum(q * math.log(q / (a[x] * b[y])) for (x, y), q in p.items() if q)
    entropy = [-sum(q * math.log(q) for q in part.values()) for part in (a, b)]
    pairs = [(i, j) for i in range(n) for j in range(i)]
    together = [[labels[i] == labels[j] for i, j in pairs] for labels in (ours, theirs)]
    both = sum(x and y for x, y in zip(*together, strict=True))
    first, second = map(sum, together)
    chance = first * second / len(pairs)
    return 2 * mutual / sum(entropy), (both - chance) / ((first + second) / 2 - chance)


def test_agreement_is_the_mean_over_classes_by_their_images():
    generator = torch.Generator().manual_seed(0)
    primary = torch.tensor([0] * 30 + [1] * 10 + [2] * 5)
    label = torch.randint(3, (45,), generator=generator)
    human = torch.cat([torch.randint(2, (40,), generator=generator), torch.full((5,), 9)])  # class 2 has one label
    found = [information(label[part].tolist(), human[part].tolist()) for part in (primary == 0, primary == 1)]
    expected = [(30 * one + 10 * other) / 40 for one, other in zip(*found, strict=True)]
    assert agreement(primary, label, human) == pytest.approx(expected, abs=1e-6)


def test_the_same_groups_by_other_names_agree_and_one_group_for_all_does_not():
    primary = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    human = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    assert agreement(primary, 7 - human, human) == pytest.approx((1, 1))
    assert agreement(primary, primary, human) == pytest.approx((0, 0))


def test_without_two_human_labels_in_a_class_there_is_nothing_to_agree_with():
    assert all(map(math.isnan, agreement(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([5, 5, 6]))))
