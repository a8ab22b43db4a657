from fractions import Fraction

import numpy as np
import pytest

from auxlight import InputError
from auxlight.budget import (
    LabelType,
    at_random,
    cheapest_first,
    equal_counts,
    equal_spend,
    heuristics,
    main_only,
    proportional,
)

TYPES = [LabelType("dear", cost=10), LabelType("cheap", cost=1, available=50), LabelType("middle", cost=4)]


def test_each_does_what_its_name_says():
    assert equal_counts(TYPES, 150).counts == {"dear": 10, "cheap": 10, "middle": 10}
    assert equal_spend(TYPES, 120).counts == {"dear": 4, "cheap": 40, "middle": 10}
    assert cheapest_first(TYPES, 100).counts == {"dear": 0, "cheap": 50, "middle": 12}
    assert main_only(TYPES, 100, "dear").counts == {"dear": 10, "cheap": 0, "middle": 0}
    assert main_only(TYPES, 100, "cheap").counts == {"dear": 5, "cheap": 50, "middle": 0}
    assert proportional(TYPES, 80, [2, 1, 1]).counts == {"dear": 4, "cheap": 20, "middle": 5}


def test_what_is_left_over_buys_on_in_turn():
    # One of each costs 15; of the other 14 one that is dear, and then what 4 still pay for, in turn.
    assert equal_counts(TYPES, 29).counts == {"dear": 2, "cheap": 5, "middle": 1}
    # 50 is the supply of what is cheap: the others share the rest.
    plan = equal_spend(TYPES, 300)
    assert plan.counts["cheap"] == 50 and plan.spend >= 300 - 4


def test_chance_is_a_function_of_its_seed():
    plans = [at_random(TYPES, 500, seed).counts for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    shares = np.array([at_random([LabelType(n) for n in "abc"], 1000, seed).counts["a"] for seed in range(400)]) / 1000
    assert shares.mean() == pytest.approx(1 / 3, abs=0.04)  # uniform on the simplex: deviation 0.24


def test_no_plan_overspends_or_leaves_what_could_be_bought():
    rng = np.random.default_rng(0)
    for _ in range(200):
        types = [
            LabelType(str(i), cost=str(rng.integers(1, 50) / 10), available=int(rng.integers(1, 30)))
            for i in range(rng.integers(1, 5))
        ]
        budget = Fraction(str(types[0].cost)) + int(rng.integers(0, 60))
        for plan in heuristics(types, budget, "0", rng.random(len(types)) + 0.01, 3):
            assert plan.spend <= budget
            left = budget - plan.spend
            assert all(one.price > left or plan.counts[one.name] == one.available for one in types), plan


def test_wrong_arguments_are_refused():
    with pytest.raises(InputError, match="`main`"):
        main_only(TYPES, 100, "none")
    with pytest.raises(InputError, match="`information`"):
        proportional(TYPES, 100, [0, 0, 0])
