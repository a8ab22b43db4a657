"""The dynamic programme against brute force, greedy and the knapsack; what a plan must keep to."""

import itertools
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from auxlight import InputError
from auxlight.budget import GeometricGain, LabelType, Plan, allocate
from auxlight.budget.allocate import _concave, _general


def total(plan, types, values, gains):
    return sum(
        value * float(gain(np.array([plan.counts[one.name]]))[0])
        for one, value, gain in zip(types, values, gains, strict=True)
    )


def brute_force(types, budget, values, gains):
    """The best total of all counts that the budget allows, one by one."""
    tables = [
        [value * float(gain(np.array([n]))[0]) for n in range(60)] for value, gain in zip(values, gains, strict=True)
    ]
    best = 0.0
    for counts in itertools.product(*(range(one.affordable(Fraction(str(budget))) + 1) for one in types)):
        if sum(one.price * n for one, n in zip(types, counts, strict=True)) <= Fraction(str(budget)):
            best = max(best, sum(table[n] for table, n in zip(tables, counts, strict=True)))
    return best


class Steps:
    """A gain that does not wear off evenly: it rises in steps."""

    def __init__(self, rng):
        self.table = np.concatenate([[0.0], np.cumsum(rng.integers(0, 3, size=60))])

    def __call__(self, count):
        return self.table[count]


def problem(rng):
    tasks = int(rng.integers(1, 5))
    decimal = rng.random() < 0.3
    types = [
        LabelType(
            f"task {i}",
            cost=str(rng.integers(10, 40) / 10) if decimal else int(rng.integers(1, 6)),
            available=None if rng.random() < 0.5 else int(rng.integers(0, 8)),
        )
        for i in range(tasks)
    ]
    budget = max(float(one.price) for one in types) + rng.integers(0, 9)
    gains = [Steps(rng) if rng.random() < 0.3 else GeometricGain(float(rng.uniform(0.05, 1))) for _ in types]
    return types, str(round(budget, 1)), rng.uniform(0, 2, size=tasks).tolist(), gains


def test_it_is_the_best_of_all_plans_in_500_problems():
    rng = np.random.default_rng(0)
    for _ in range(500):
        types, budget, values, gains = problem(rng)
        plan = allocate(types, budget, values, gains)
        assert plan.spend <= Fraction(budget)
        assert all(one.available is None or plan.counts[one.name] <= one.available for one in types)
        assert total(plan, types, values, gains) == pytest.approx(brute_force(types, budget, values, gains), abs=1e-9)


def test_where_costs_are_equal_it_is_greedy():
    """With gains that wear off, the next label goes to the type of which it tells most."""
    rng = np.random.default_rng(1)
    for _ in range(50):
        types = [LabelType(str(i), cost=3) for i in range(4)]
        values = rng.uniform(0.1, 2, size=4)
        gains = [GeometricGain(float(beta)) for beta in rng.uniform(0.5, 0.999, size=4)]
        counts = [0] * 4
        for _ in range(40):
            following = [
                v * (g(np.array([n + 1])) - g(np.array([n])))[0] for v, g, n in zip(values, gains, counts, strict=True)
            ]
            counts[int(np.argmax(following))] += 1
        plan = allocate(types, 3 * 40 + 2, values.tolist(), gains)
        assert list(plan.counts.values()) == counts


def test_at_beta_one_it_is_the_linear_knapsack():
    """Against scipy's solver of integer programmes, and in the limit."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        types = [LabelType(str(i), cost=int(rng.integers(1, 20)), available=int(rng.integers(0, 30))) for i in range(4)]
        values, budget = rng.uniform(0.1, 5, size=4), int(rng.integers(20, 200))
        solved = milp(
            -values,
            constraints=LinearConstraint([[one.cost for one in types]], ub=budget),
            bounds=Bounds(0, [one.available for one in types]),
            integrality=np.ones(4),
        )
        for beta in (1.0, 1 - 1e-10):
            plan = allocate(types, budget, values.tolist(), [GeometricGain(beta)] * 4)
            assert sum(values * list(plan.counts.values())) == pytest.approx(-solved.fun, rel=1e-6)


def test_the_scale_of_the_information_changes_no_plan():
    rng = np.random.default_rng(5)
    for _ in range(60):
        types = [LabelType(str(i), cost=int(rng.integers(1, 4)), available=9) for i in range(3)]
        values, gains = rng.uniform(0.5, 2, size=3), [Steps(rng) for _ in range(3)]
        totals = [
            total(allocate(types, 20, (scale * values).tolist(), gains), types, values, gains)
            for scale in (1, 1e-13, 1e13)
        ]
        assert totals == pytest.approx([totals[0]] * 3)


def test_more_money_than_all_labels_cost_buys_all_labels():
    types = [LabelType("a", cost=2, available=10), LabelType("b", cost="0.35", available=20)]
    plan = allocate(types, 1e12, [1, 1], [GeometricGain(0.9)] * 2)
    assert plan.counts == {"a": 10, "b": 20} and plan.spend == 27


def test_the_two_ways_through_the_programme_agree():
    rng = np.random.default_rng(2)
    for _ in range(100):
        rows, width = rng.integers(1, 60), rng.integers(1, 6)
        columns = np.maximum.accumulate(rng.random((rows, width)), axis=0)
        table = GeometricGain(float(rng.uniform(0.5, 1)))(np.arange(rng.integers(1, rows + 1)))
        one, other = _concave(columns, table), _general(columns, table)
        np.testing.assert_allclose(one[0], other[0], atol=1e-12)
        for values, starts in (one, other):
            counts = np.arange(rows)[:, None] - starts
            reached = columns[starts, np.arange(width)] + table[counts]
            np.testing.assert_allclose(values, reached, atol=1e-12)


def test_of_a_hundred_thousand_units_the_last_of_each_type_told_as_much():
    """Seconds and megabytes are benchmarks/budget_allocation.py's."""
    types = [LabelType(str(i), cost=cost) for i, cost in enumerate((1, 2, 3, 5, 8))]
    gains = [GeometricGain(beta) for beta in (0.9999, 0.9995, 0.99999, 0.999, 1.0)]
    plan = allocate(types, 100_000, [1.0, 2.0, 1.5, 8.0, 0.3], gains)
    # The last label of each type told as much per cost as that of any other, but for rounding.
    marginal = []
    for one, value, gain in zip(types[:4], [1.0, 2.0, 1.5, 8.0], gains[:4], strict=True):
        n = plan.counts[one.name]
        marginal.append(value * float((gain(np.array([n])) - gain(np.array([n - 1])))[0]) / one.cost)
    assert n and max(marginal) / min(marginal) < 1.01
    assert plan.spend <= 100_000


def test_decimal_costs_are_taken_as_they_are_written():
    plan = allocate([LabelType("a", cost=0.1), LabelType("b", cost="0.3")], 0.3, [1.0, 2.9], [GeometricGain(1.0)] * 2)
    assert plan.counts == {"a": 3, "b": 0} and plan.spend == Fraction(3, 10)


def test_what_cannot_be_paid_costs_no_memory():
    """The least price divides the dearest one, of which not one label can be bought."""
    types = [LabelType("a", "0.01"), LabelType("dear", 20_000)]
    gains = [GeometricGain(1.0)] * 2
    tracemalloc.start()
    plan = allocate(types, 10, [1.0, 5.0], gains)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.counts == {"a": 1000, "dear": 0} and peak < 10_000_000


def test_where_nothing_is_available_nothing_is_bought():
    assert allocate([LabelType("a", 1, available=0)], 10, [1.0], [GeometricGain(0.5)]).counts == {"a": 0}


def test_no_information_buys_nothing():
    gains = [GeometricGain(0.5)] * 2
    assert allocate([LabelType("a"), LabelType("b", cost=2)], 5, [0.0, 0.0], gains).spend == 0
    # Money that is left over is not spent on labels that tell nothing.
    plan = allocate([LabelType("a", available=2), LabelType("b", cost=2)], 50, [1.0, 0.0], gains)
    assert plan.counts == {"a": 2, "b": 0}


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: LabelType("a", cost=0), ("`cost`", "'a'", "0")),
        (lambda: LabelType("a", cost=-1.5), ("`cost`", "-1.5")),
        (lambda: LabelType("a", cost=float("nan")), ("`cost`", "nan")),
        (lambda: LabelType("a", available=-1), ("`available`", "-1")),
        (lambda: LabelType("a", available=1.5), ("`available`", "1.5")),
        (lambda: LabelType("a", priority=-1), ("`priority`", "-1")),
        (lambda: allocate([LabelType("a", cost=9)], 8, [1], [GeometricGain(0.5)]), ("`budget`", "'a'", "8")),
        (lambda: allocate([], 8, [], []), ("label type",)),
        (lambda: allocate([LabelType("a"), LabelType("a")], 8, [1, 1], [GeometricGain(0.5)] * 2), ("names",)),
        (lambda: allocate([LabelType("a")], 8, [1, 1], [GeometricGain(0.5)]), ("2 and 1 for 1",)),
        (lambda: allocate([LabelType("a")], 8, [float("nan")], [GeometricGain(0.5)]), ("`information`", "nan")),
        (lambda: allocate([LabelType("a")], 8, [1], [lambda n: 1.0 - n]), ("gain", "'a'")),
        (lambda: allocate([LabelType("a")], "much", [1], [GeometricGain(0.5)]), ("`budget`", "much")),
        (lambda: LabelType("a", available=float("inf")), ("`available`", "inf")),
        (
            lambda: allocate([LabelType("a", cost=0.1 + 0.2), LabelType("b")], 9, [1, 1], [GeometricGain(0.5)] * 2),
            ("at most", "round the costs"),
        ),
        (lambda: GeometricGain(0.0), ("`beta`", "0.0")),
        (lambda: GeometricGain(1.1), ("`beta`", "1.1")),
        (lambda: GeometricGain(0.5, block=0), ("`block`", "0")),
        (lambda: Plan.of([LabelType("a", cost=2)], [3], Fraction(5), "mine"), ("mine", "'a'")),
        (lambda: Plan.of([LabelType("a"), LabelType("b")], [3, 3], Fraction(5), "mine"), ("budget of 5", "6")),
    ],
)
def test_each_mistake_gets_one_line(make, parts):
    with pytest.raises(InputError) as error:
        make()
    assert all(part in str(error.value) for part in parts) and "\n" not in str(error.value)


@pytest.mark.parametrize("beta", [0.1, 0.9, 1 - 1e-6, 1.0])
def test_the_gain_is_the_sum_of_its_labels(beta):
    table = GeometricGain(beta)(np.arange(50))
    np.testing.assert_allclose(table, np.concatenate([[0], np.cumsum(beta ** np.arange(49))]), rtol=1e-9)
    np.testing.assert_allclose(GeometricGain(beta, block=10)(np.arange(0, 100, 10)), table[:10], rtol=1e-9)
