"""Time of a training step under each combiner, in steps of the plain sum; and of the rules beside TorchJD's own loop.

    python benchmarks/combiner_step.py [--quick] [--width W]

VGG16 on images of 32 × 32 in batches of 100, three tasks (primary, human labels, and rotation, which has a pass of its
own over the trunk), steps with their optimizer, all in one run, in turn. "Task gradients" is the forward pass and one
backward pass per task by `torch.autograd.grad`: what any rule on gradients must pay for. TorchJD's loop is
`mtl_backward` (one task at a time, as here), `jac_to_grad` and the same optimizer step. Rules that learn by a step of
their own every so often are timed without it, and with it on every step ("learning").

Targets: AuxiNash with 3 tasks ≤ 1.15 × the task gradients; one bargain of 3 tasks < 1 ms.
"""

import argparse
import logging
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from common import header, interleaved, report
from torch.optim import SGD
from torchjd.aggregation import MGDA, PCGrad, UPGrad
from torchjd.autojac import jac_to_grad, mtl_backward

from auxlight import (
    ARML,
    Aggregation,
    AuxiNash,
    CombinationNetwork,
    Combiner,
    DynamicWeightAverage,
    GradientCosine,
    GradNorm,
    HumanLabels,
    LabelHierarchy,
    MultiHeadVGG,
    OnlineAuxiliary,
    RandomWeights,
    RotationTask,
    SLGrad,
    UncertaintyWeighting,
    WeightedSum,
)
from auxlight.batch import Batch
from auxlight.combiners.bargaining import bargain

BATCH = 100
TASKS = 3
HIERARCHY = LabelHierarchy.build(20, 5)
AGGREGATORS = {"pcgrad": PCGrad, "mgda": MGDA, "upgrad": UPGrad}
COMBINERS: dict[str, Callable[[], Combiner]] = {
    "sum": WeightedSum,
    "uncertainty": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    "rlw": RandomWeights,
    "gradnorm": GradNorm,
    "gcs": GradientCosine,
    "ol_aux": OnlineAuxiliary,
    "arml": ARML,
    "slgrad": SLGrad,
    "auxinash": lambda: AuxiNash(learn=False),
    "auxinash_learning": lambda: AuxiNash(interval=1),
    "auxilearn_mlp": lambda: CombinationNetwork((3,), interval=10**9),
    "auxilearn_mlp_learning": lambda: CombinationNetwork((3,), interval=1),
    **{name: lambda rule=rule: Aggregation(rule()) for name, rule in AGGREGATORS.items()},  # type: ignore[misc]
}


class Bare(MultiHeadVGG):
    """A module whose further batches are the step's own."""

    def next_batch(self, stream: str, split: Any) -> Batch:
        """The one batch that there is."""
        return self.batch


def model(combiner: Combiner, width: float) -> Bare:
    """The network and its optimizer."""
    torch.manual_seed(0)
    made = Bare(HIERARCHY, width=width, labeler=HumanLabels(), tasks=[RotationTask()], combiner=combiner)
    image = torch.randn(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    auxiliary = torch.arange(BATCH)
    made.batch = Batch(image, auxiliary // 5, auxiliary, auxiliary)
    made.sgd = SGD([p for p in made.parameters() if p.requires_grad], lr=0.01)
    return made


def step(made: Bare) -> Callable[[], None]:
    """A training step as Lightning takes it."""

    def run() -> None:
        made.sgd.zero_grad()
        made.step(made.batch).loss.backward()
        made.sgd.step()

    return run


def task_gradients(made: Bare) -> Callable[[], None]:
    """Forward, and a backward pass per task; nothing is made of them."""
    parameters = [p for p in made.parameters() if p.requires_grad]

    def run() -> None:
        features = made.features(made.batch.image)
        losses = made.task_losses(features, made.primary_head(features), made.batch)
        for number, mean in enumerate(losses.scalars()):
            torch.autograd.grad(mean, parameters, retain_graph=number < TASKS - 1, allow_unused=True)

    return run


def torchjd_step(made: Bare, aggregator: Any) -> Callable[[], None]:
    """TorchJD's own loop; rotation's features are shared features as well."""
    features: list[torch.Tensor] = []
    made.trunk.register_forward_hook(lambda trunk, image, output: features.append(output))

    def run() -> None:
        made.sgd.zero_grad()
        features.clear()
        own = made.features(made.batch.image)
        losses = made.task_losses(own, made.primary_head(own), made.batch)
        mtl_backward(losses.scalars(), features=features, parallel_chunk_size=1)
        jac_to_grad(list(made.trunk.parameters()), aggregator=aggregator)
        made.sgd.step()

    return run


def bargain_seconds(solves: int = 500) -> float:
    """Median of single solutions of the bargaining problem, of random gradients of 3 tasks."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(solves, TASKS, 100, generator=generator, dtype=torch.float64)
    times = []
    for gramian in rows @ rows.transpose(1, 2):
        start = time.perf_counter()
        bargain(gramian, torch.ones(TASKS))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, and no steps of the rules' own: a minute at most"
    )
    parser.add_argument("--width", type=float, default=0.25, help="factor on VGG16's channels")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rounds = 4 if arguments.quick else 15
    header(rounds=rounds, batch=BATCH, tasks=TASKS, width=arguments.width)
    width = arguments.width
    chosen = {name: make for name, make in COMBINERS.items() if not (arguments.quick and name.endswith("_learning"))}
    sides = {name: step(model(make(), width)) for name, make in chosen.items()}
    sides["task_gradients"] = task_gradients(model(WeightedSum(), width))
    sides |= {
        f"torchjd_{name}": torchjd_step(model(WeightedSum(), width), rule()) for name, rule in AGGREGATORS.items()
    }
    times = interleaved(sides, rounds)
    figures = {f"{name}_in_plain_steps": seconds / times["sum"] for name, seconds in times.items()}
    figures |= {f"{name}_over_torchjd": times[name] / times[f"torchjd_{name}"] for name in AGGREGATORS}
    figures["auxinash_over_task_gradients"] = times["auxinash"] / times["task_gradients"]
    figures["bargain_ms"] = 1e3 * bargain_seconds()
    print(f"sum       {1e3 * times['sum']:.0f} ms")
    for name, value in figures.items():
        print(f"{name:40s}{value:10.3f}")
    ok = figures["auxinash_over_task_gradients"] <= 1.15 and figures["bargain_ms"] < 1
    report({name: round(value, 4) for name, value in figures.items()}, ok=ok)


if __name__ == "__main__":
    main()
