"""What can be bought, and what is bought."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from numbers import Integral

from auxlight.errors import InputError

Amount = int | float | str | Fraction


def exact(amount: Amount, name: str) -> Fraction:
    """A decimal amount as it is written: 0.1 is a tenth.

    Args:
        amount: a number, or its text.
        name: of the parameter, for messages.

    Raises:
        InputError: no finite number.
    """
    try:
        return Fraction(str(amount))
    except (ValueError, ZeroDivisionError) as error:
        raise InputError(f"`{name}` must be a finite number. Found {name}={amount!r}.") from error


@dataclass(frozen=True)
class LabelType:
    """A kind of label, that of one task.

    Args:
        name: of the task.
        cost: of one label, in whatever the budget is counted in; decimal numbers are taken as they are written.
        available: how many can be bought; None for as many as the budget allows.
        priority: ω ≥ 0, how much the task's own metric matters to the buyer.

    Raises:
        InputError: a cost that is not above 0, a limit or a priority below 0.
    """

    name: str
    cost: Amount = 1
    available: int | None = None
    priority: float = 1.0

    def __post_init__(self) -> None:
        where = f"of label type {self.name!r}"
        if not exact(self.cost, "cost") > 0:
            raise InputError(f"`cost` {where} must be above 0. Found cost={self.cost}.")
        if self.available is not None and (not isinstance(self.available, Integral) or self.available < 0):
            raise InputError(f"`available` {where} must be an integer ≥ 0, or null. Found available={self.available}.")
        if not (self.priority >= 0 and math.isfinite(self.priority)):
            raise InputError(f"`priority` {where} must be a finite number ≥ 0. Found priority={self.priority}.")

    @property
    def price(self) -> Fraction:
        """Exact cost of one label."""
        return exact(self.cost, "cost")

    def affordable(self, budget: Fraction) -> int:
        """How many labels the budget and the supply allow."""
        most = int(budget / self.price)
        return most if self.available is None else min(most, int(self.available))


@dataclass(frozen=True)
class Plan:
    """How many labels of each type to buy.

    Attributes:
        counts: by name.
        spend: in all.
        budget: that it keeps to.
        strategy: that made it.
    """

    counts: Mapping[str, int]
    spend: Fraction
    budget: Fraction
    strategy: str

    @classmethod
    def of(cls, types: Sequence[LabelType], counts: Sequence[int], budget: Fraction, strategy: str) -> "Plan":
        """The plan that buys these counts.

        Raises:
            InputError: more than the budget or the supply; a strategy of one's own is at fault.
        """
        spend = sum((one.price * int(count) for one, count in zip(types, counts, strict=True)), Fraction(0))
        for one, count in zip(types, counts, strict=True):
            if not 0 <= count <= one.affordable(budget):
                raise InputError(
                    f"A plan must buy between 0 and {one.affordable(budget)} labels of type {one.name!r}. "
                    f"Found {count} by strategy {strategy!r}."
                )
        if spend > budget:
            raise InputError(
                f"A plan must keep to its budget of {float(budget):g}. Found {float(spend):g} by strategy {strategy!r}."
            )
        names = [one.name for one in types]
        return cls({name: int(count) for name, count in zip(names, counts, strict=True)}, spend, budget, strategy)


def check_market(types: Sequence[LabelType], budget: Amount) -> Fraction:
    """The exact budget, if something can be bought with it.

    Raises:
        InputError: no label types, two of one name, or a budget below every cost.
    """
    if not types:
        raise InputError("There must be at least one label type. Found none.")
    names = [one.name for one in types]
    if len(set(names)) < len(names):
        raise InputError(f"Label types must have names of their own. Found {names}.")
    money = exact(budget, "budget")
    cheapest = min(types, key=lambda one: one.price)
    if money < cheapest.price:
        raise InputError(
            f"`budget` must pay for one label at least: the cheapest, {cheapest.name!r}, costs {cheapest.cost}. "
            f"Found budget={budget}."
        )
    return money
