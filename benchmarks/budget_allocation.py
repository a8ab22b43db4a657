"""What an exact plan costs: five tasks and a budget of 100,000 units, and of gains that do not wear off evenly.

Target: below 5 s and 1 GB with gains that wear off. (Any other gain takes the square of the budget, and a tenth of it
here.)

    python benchmarks/budget_allocation.py [--quick]
"""

import argparse
import resource
import time

import numpy as np
from common import header, report

from auxlight.budget import GeometricGain, LabelType, allocate

COSTS, VALUES = (1, 2, 3, 5, 8), (1.0, 2.0, 1.5, 8.0, 0.3)


class Steps:
    """Every tenth label tells something."""

    def __call__(self, count: np.ndarray) -> np.ndarray:
        """See `Gain`."""
        return (np.asarray(count) // 10).astype(np.float64)


def main() -> None:
    """Time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    header(tasks=len(COSTS), costs=COSTS)
    types = [LabelType(str(cost), cost=cost) for cost in COSTS]
    figures = {}
    wearing = [GeometricGain(beta) for beta in (0.9999, 0.9995, 0.99999, 0.999, 1.0)]
    for name, gains, budget in (("wearing_off", wearing, 100_000), ("in_steps", [Steps()] * 5, 10_000)):
        start = time.perf_counter()
        plan = allocate(types, budget, VALUES, gains)
        figures[f"{name}_s"] = round(time.perf_counter() - start, 3)
        print(f"{name:12} budget {budget:7,}  {figures[f'{name}_s']:.2f} s  {dict(plan.counts)}")
    figures["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
    report(figures, figures["wearing_off_s"] < 5 and figures["peak_gb"] < 1)


if __name__ == "__main__":
    main()
