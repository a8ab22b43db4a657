"""`auxlight budget [simulate] --config STUDY.yaml [--KEY VALUE …]`."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from auxlight.budget.estimate import Estimate
from auxlight.budget.labels import Plan
from auxlight.budget.study import BudgetStudy
from auxlight.outputs import writable
from auxlight.parser_errors import one_line

NOTHING_RISES = (
    "No learning curve of pseudo-labels rises, so the plan buys nothing. That need not be true of real labels: train "
    "longer, or give a larger seed set."
)


def main(words: Sequence[str]) -> None:
    """Estimate, allocate and print the plan; with `simulate` buy, train and compare.

    Args:
        words: of the command line, after `budget`.
    """
    simulate = bool(words) and words[0] == "simulate"
    parser = ArgumentParser(
        prog=f"auxlight budget{' simulate' if simulate else ''}",
        description="Which labels to buy with a budget: TABA's plan beside those of the heuristics"
        + (", and what each is worth once the labels are bought." if simulate else "."),
        exit_on_error=False,
    )
    parser.add_argument("-c", "--config", action="config", help="YAML file of the study.")
    parser.add_class_arguments(BudgetStudy, None)
    parser.add_argument("--seed", type=int, default=0, help="Of the seed set and the estimates of a plan.")
    parser.add_argument("--output", type=str | None, default=None, help="JSON file; in the study's folder by default.")
    if simulate:
        parser.add_argument("--seeds", type=int, default=5, help="How often the whole simulation is repeated.")
    with one_line(parser):
        arguments = parser.parse_args(list(words[1:] if simulate else words))
    found = parser.instantiate(arguments).as_dict()
    own = {key: found.pop(key, None) for key in ("config", "seed", "output", "seeds")}
    study = BudgetStudy(**found)
    path = writable(Path(own["output"] or study.folder / ("simulation.json" if simulate else "plan.json")))
    if simulate:
        result = study.simulate(own["seeds"])
        print(comparison_table(result))
    else:
        result = plan_of(study, own["seed"])
        print(plan_table(result))
    path.write_text(json.dumps(_without_nan(result), indent=2, allow_nan=False) + "\n")
    print(f"\nWritten to {path}")


def plan_of(study: BudgetStudy, seed: int = 0) -> dict[str, Any]:
    """Plans and what they rest on, as plain values."""
    estimate = study.estimate(seed)
    plans = study.plans(estimate, seed)
    return {
        "budget": float(plans[0].budget),
        "types": [_type_row(study, estimate, i, plans[0]) for i in range(len(study.types))],
        "plans": [
            {
                "strategy": plan.strategy,
                "counts": dict(plan.counts),
                "spend": float(plan.spend),
                "information": study.expected(plan, estimate),
            }
            for plan in plans
        ],
        "relatedness": estimate.related.tolist(),
        "curves": {
            one.name: {
                **curve._asdict(),
                "counts": estimate.points[one.name][0],
                "metrics": estimate.points[one.name][1],
            }
            for one, curve in zip(study.types, estimate.curves, strict=True)
        },
    }


def _type_row(study: BudgetStudy, estimate: Estimate, i: int, plan: Plan) -> dict[str, Any]:
    one = study.types[i]
    return {
        "name": one.name,
        "cost": float(one.price),
        "information": estimate.information[i],
        "reduction_rate": estimate.curves[i].beta,
        "reduction_rate_interval": estimate.curves[i].beta_interval,
        "block": estimate.curves[i].block,
        "count": plan.counts[one.name],
        "spend": float(one.price * plan.counts[one.name]),
    }


def plan_table(result: dict[str, Any]) -> str:
    """The plan, and below it what each strategy would buy."""
    rows = [["label type", "cost", "information", "reduction rate", "buy", "spend"]]
    rows += [
        [row["name"], f"{row['cost']:g}", f"{row['information']:.3f}",
         _rate(row), str(row["count"]), f"{row['spend']:g}"]
        for row in result["types"]
    ]  # fmt: skip
    names = [row["name"] for row in result["types"]]
    best = result["plans"][0]["information"]
    others = [["strategy", *names, "spend", "expected gain", "of TABA's"]]
    others += [
        [plan["strategy"], *(str(plan["counts"][name]) for name in names), f"{plan['spend']:g}",
         f"{plan['information']:.3f}", f"{plan['information'] / best:.0%}" if best else ""]
        for plan in result["plans"]
    ]  # fmt: skip
    nothing = "" if best else f"\n\n{NOTHING_RISES}"
    return f"Budget {result['budget']:g}\n\n{_aligned(rows)}\n\n{_aligned(others)}{nothing}"


def _rate(row: dict[str, Any]) -> str:
    """A reduction rate with its interval; of a curve that does not rise, that."""
    low, high = row["reduction_rate_interval"]
    if low != low:
        return "more tells nothing"
    return f"{row['reduction_rate']:.2f} ({low:.2f} to {high:.2f}) per {row['block']:g}"


def comparison_table(result: dict[str, Any]) -> str:
    """Relative gains over the seed set alone, with 95 % intervals over seeds."""
    rows = [["strategy", "relative gain", "TABA's gain is larger by"]]
    for row in result["comparison"]:
        gain = f"{row['gain']:+.1%} ± {row['interval']:.1%}"
        behind = "" if row["strategy"] == "TABA" else f"{row['behind']:+.1%} ± {row['behind_interval']:.1%}"
        rows.append([row["strategy"], gain, behind])
    return f"{result['seeds']} seeds, mean ± half of the 95 % confidence interval\n\n{_aligned(rows)}"


def _without_nan(value: Any) -> Any:
    """Nan as null, which is what JSON has."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
