"""What one would do without TABA: the plans that it has to be compared to."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from auxlight.budget.labels import Amount, LabelType, Plan, check_market
from auxlight.errors import InputError
from auxlight.seeding import derive_seed

# Exact money for each type → a plan's counts; what is left over buys on in turn.
Shares = Sequence[Fraction]


def equal_counts(types: Sequence[LabelType], budget: Amount) -> Plan:
    """As many labels of each type as of any other, as far as the supply reaches."""
    money = check_market(types, budget)
    low, high = 0, max(one.affordable(money) for one in types)
    while low < high:  # the largest count that all together can afford
        middle = (low + high + 1) // 2
        spend = sum((one.price * min(middle, one.affordable(money)) for one in types), Fraction(0))
        low, high = (middle, high) if spend <= money else (low, middle - 1)
    counts = [min(low, one.affordable(money)) for one in types]
    return _completed(types, counts, money, "equal counts")


def equal_spend(types: Sequence[LabelType], budget: Amount) -> Plan:
    """The same amount of money for each type."""
    money = check_market(types, budget)
    return _by_shares(types, [Fraction(1)] * len(types), money, "equal spend")


def proportional(types: Sequence[LabelType], budget: Amount, information: Sequence[float]) -> Plan:
    """Money in proportion to the information of each type's labels."""
    money = check_market(types, budget)
    shares = [Fraction(value) for value in information]
    if not sum(shares) or min(shares) < 0:
        raise InputError(f"`information` must be ≥ 0 and not all 0. Found {list(information)}.")
    return _by_shares(types, shares, money, "proportional")


def cheapest_first(types: Sequence[LabelType], budget: Amount) -> Plan:
    """All of the cheapest type, then of the next."""
    money = check_market(types, budget)
    order = sorted(range(len(types)), key=lambda i: types[i].price)
    return _in_order(types, order, money, "cheapest first")


def main_only(types: Sequence[LabelType], budget: Amount, main: str) -> Plan:
    """Labels of the main task; of others only what is left when its supply is used up."""
    money = check_market(types, budget)
    names = [one.name for one in types]
    if main not in names:
        raise InputError(f"`main` must name a label type, one of {names}. Found main={main!r}.")
    first = names.index(main)
    return _in_order(types, [first, *(i for i in range(len(types)) if i != first)], money, "main only")


def at_random(types: Sequence[LabelType], budget: Amount, seed: int = 0) -> Plan:
    """Money by chance: shares drawn evenly from all that sum to 1."""
    money = check_market(types, budget)
    draws = np.random.default_rng(derive_seed("budget", seed)).exponential(size=len(types))
    return _by_shares(types, [Fraction(draw) for draw in draws], money, "random")


def heuristics(
    types: Sequence[LabelType], budget: Amount, main: str, information: Sequence[float], seed: int = 0
) -> list[Plan]:
    """All of them."""
    rules: list[Callable[[], Plan]] = [
        lambda: equal_counts(types, budget),
        lambda: equal_spend(types, budget),
        lambda: cheapest_first(types, budget),
        lambda: main_only(types, budget, main),
        lambda: proportional(types, budget, information),
        lambda: at_random(types, budget, seed),
    ]
    return [rule() for rule in rules]


def _by_shares(types: Sequence[LabelType], shares: Shares, money: Fraction, strategy: str) -> Plan:
    total = sum(shares, Fraction(0))
    counts = [one.affordable(money * share / total) for one, share in zip(types, shares, strict=True)]
    return _completed(types, counts, money, strategy)


def _in_order(types: Sequence[LabelType], order: Sequence[int], money: Fraction, strategy: str) -> Plan:
    counts, left = [0] * len(types), money
    for i in order:
        counts[i] = types[i].affordable(left)
        left -= types[i].price * counts[i]
    return Plan.of(types, counts, money, strategy)


def _completed(types: Sequence[LabelType], counts: list[int], money: Fraction, strategy: str) -> Plan:
    """With what rounding and empty supplies left over, a label of each type in turn, for as long as one can be paid."""
    left = money - sum((one.price * count for one, count in zip(types, counts, strict=True)), Fraction(0))
    open_types = [i for i, one in enumerate(types) if counts[i] < one.affordable(money)]
    while open_types:
        open_types = [i for i in open_types if types[i].price <= left and counts[i] < types[i].affordable(money)]
        # Whole rounds at once, while none of the supplies ends.
        cost = sum((types[i].price for i in open_types), Fraction(0))
        rounds = min([int(left / cost), *(types[i].affordable(money) - counts[i] for i in open_types)]) if cost else 0
        for i in open_types:
            if rounds or (types[i].price <= left and counts[i] < types[i].affordable(money)):
                counts[i] += rounds or 1
                left -= types[i].price * (rounds or 1)
    return Plan.of(types, counts, money, strategy)
