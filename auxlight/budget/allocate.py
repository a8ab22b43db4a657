"""The exact allocation of a budget, by dynamic programming (TABA)."""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm

import numpy as np

from auxlight.budget.gain import Gain
from auxlight.budget.labels import Amount, LabelType, Plan, check_market
from auxlight.errors import InputError

LARGEST = 20_000_000  # units of a budget, some gigabytes


def allocate(types: Sequence[LabelType], budget: Amount, information: Sequence[float], gains: Sequence[Gain]) -> Plan:
    """The plan of the largest total information: max Σ_i I_i g_i(n_i) subject to Σ_i c_i n_i ≤ budget, n_i ≤ U_i.

    F_i(b) = max_n F_{i−1}(b − c_i n) + I_i g_i(n), over all budgets b in units of the greatest common divisor of the
    costs. Where a gain wears off (is concave), the best n of neighbouring budgets lie in order, and a task takes
    O(b log b); any other gain takes O(b²/c).

    The programme is TABA's; that information is I_i g_i(n) with these gains is our reconstruction.

    Args:
        types: what can be bought.
        budget: in units of the costs.
        information: I_i ≥ 0 of the first block of labels of each type.
        gains: g_i of each type.

    Raises:
        InputError: costs, limits or information out of range; a gain that is not 0 for no label, or falls.
    """
    money = check_market(types, budget)
    values = [float(value) for value in information]
    if len(values) != len(types) or len(gains) != len(types):
        raise InputError(
            "There must be one information and one gain for each label type. "
            f"Found {len(values)} and {len(gains)} for {len(types)} types."
        )
    for one, value in zip(types, values, strict=True):
        if not 0 <= value < float("inf"):
            raise InputError(f"`information` of {one.name!r} must be a finite number ≥ 0. Found {value}.")
    within = [i for i, one in enumerate(types) if one.affordable(money)]  # the others would only cost memory
    counts = [0] * len(types)
    if not within:  # nothing is there to be bought
        return Plan.of(types, counts, money, "TABA")
    unit = _unit([types[i].price for i in within])
    # More than all that there is cannot be spent.
    size = int(min(money, sum((one.price * one.affordable(money) for one in types), Fraction(0))) / unit)
    if size > LARGEST:
        raise InputError(
            f"The budget must be at most {LARGEST:,} units of what divides all costs, {float(unit):g}. Found {size:,}: "
            "round the costs, or limit what is `available`."
        )
    best = np.zeros(size + 1)
    chosen: list[np.ndarray] = []
    for i in within:
        table = values[i] * tabulated(gains[i], types[i].affordable(money), types[i].name)
        best, choice = _extended(best, table, int(types[i].price / unit))
        chosen.append(choice)
    left = size
    for i, choice in reversed(list(zip(within, chosen, strict=True))):
        counts[i] = int(choice[left])
        left -= counts[i] * int(types[i].price / unit)
    return Plan.of(types, counts, money, "TABA")


def tabulated(gain: Gain, most: int, name: str) -> np.ndarray:
    """g(0), …, g(most).

    Raises:
        InputError: a gain that breaks the rules of `Gain`.
    """
    table = np.asarray(gain(np.arange(most + 1)), dtype=np.float64)
    if table.shape != (most + 1,) or not np.isfinite(table).all() or table[0] != 0 or (np.diff(table) < 0).any():
        raise InputError(
            f"The gain of {name!r} must be 0 for no label, finite, and never fall. "
            f"Found {table[:4].tolist()}{' …' if most > 3 else ''} for 0, 1, 2, … labels."
        )
    return table


def _unit(prices: Sequence[Fraction]) -> Fraction:
    """The largest amount of which all prices are multiples."""
    denominator = lcm(*(price.denominator for price in prices))
    return Fraction(gcd(*(int(price * denominator) for price in prices)), denominator)


def _extended(before: np.ndarray, table: np.ndarray, cost: int) -> tuple[np.ndarray, np.ndarray]:
    """F_i and the counts that reach it, for all budgets; budgets that differ by multiples of the cost form a row."""
    size = len(before)
    rows = -(-size // cost)
    padded = np.full(rows * cost, -np.inf)
    padded[:size] = before
    # Column r holds the budgets r, r + c, r + 2c, …: F_i(r + kc) = max_j F_{i−1}(r + jc) + g(k − j).
    columns = padded.reshape(rows, cost)
    curved = np.diff(table, 2)
    concave = not len(curved) or curved.max() <= 1e-12 * table[-1]
    values, starts = (_concave if concave else _general)(columns, table)
    counts = np.arange(rows)[:, None] - starts
    return values.reshape(-1)[:size], counts.reshape(-1)[:size].astype(np.int64)


def _general(columns: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All counts, one after the other."""
    rows = len(columns)
    values = columns + table[0]
    starts = np.repeat(np.arange(rows)[:, None], columns.shape[1], axis=1)
    for count in range(1, min(len(table), rows)):
        found = columns[:-count] + table[count]
        better = found > values[count:]
        values[count:][better] = found[better]
        starts[count:][better] = np.broadcast_to(np.arange(rows - count)[:, None], found.shape)[better]
    return values, starts


def _concave(columns: np.ndarray, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row by row of a bisection: the best start of a row lies between those of the rows around it.

    With g concave (−∞ beyond its last count) the matrix F(j) + g(k − j) is totally monotone in each column.
    """
    rows, width = columns.shape
    values = np.full((rows, width), -np.inf)
    starts = np.zeros((rows, width), dtype=np.int64)
    done = np.zeros(rows, dtype=bool)
    step = 1 << max(0, (rows - 1).bit_length())
    while step:
        todo = np.arange(step - 1, rows, step) if step > 1 else np.arange(rows)
        todo = todo[~done[todo]]
        step //= 2
        if not len(todo):
            continue
        known = np.flatnonzero(done)
        above = np.searchsorted(known, todo)
        low = np.zeros((len(todo), width), dtype=np.int64)
        high = np.broadcast_to(todo[:, None], (len(todo), width)).copy()
        has_lower, has_upper = above > 0, above < len(known)
        low[has_lower] = starts[known[above[has_lower] - 1]]
        high[has_upper] = np.minimum(high[has_upper], starts[known[above[has_upper]]])
        low = np.maximum(low, todo[:, None] - (len(table) - 1))
        high = np.maximum(high, low)
        _best_between(columns, table, todo, low, high, values, starts)
        done[todo] = True
    return values, starts


def _best_between(
    columns: np.ndarray,
    table: np.ndarray,
    todo: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
) -> None:
    """For each row of `todo` and each column the best start in [low, high], all ranges laid end to end."""
    width = columns.shape[1]
    lengths = (high - low + 1).reshape(-1)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    position = np.arange(int(lengths.sum()))
    owner = np.repeat(np.arange(len(lengths)), lengths)
    start = low.reshape(-1)[owner] + position - offsets[owner]
    row, column = todo[owner // width], owner % width
    found = columns[start, column] + table[row - start]
    best = np.maximum.reduceat(found, offsets)
    last = np.zeros(len(lengths), dtype=np.int64)  # of equal ones the fewest labels
    hits = np.flatnonzero(found == best[owner])
    np.maximum.at(last, owner[hits], hits)
    values[todo] = best.reshape(len(todo), width)
    starts[todo] = start[last].reshape(len(todo), width)
