"""AuxiLearn's learned combination of losses."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD

from auxlight.combiners.base import TaskLosses
from auxlight.combiners.context import StepContext
from auxlight.combiners.learned import LearnedCombiner, MakeOptimizer
from auxlight.errors import InputError
from auxlight.implicit import check_series, implicit_gradient


class CombinationNetwork(LearnedCombiner):
    """Auxiliary Learning by Implicit Differentiation, combining losses (Navon et al., 2021).

    L_T = mean_i φ(ℓ_i1, …, ℓ_iM) (+ mean_i ℓ_i1 where φ is no linear map), φ a network whose weights are kept at 0 or
    above, so that no loss is traded for a larger one. Every `interval` steps φ takes one along the implicit
    hypergradient of the primary loss L_V on held-out images, −∇_θL_V · H⁻¹ · ∂_φ∇_θL_T, θ the shared parameters and
    H = ∇²_θL_T, its inverse a Neumann series without its factor η, as in the authors' code.

    Args:
        hidden: sizes of φ's hidden layers, with softplus and a bias; none for a linear φ, which starts at 1 for each
            task, as the plain sum does. The authors': [3], from uniform weights in [0, 1].
        per_sample: φ takes the losses of each image; False: the tasks' mean losses.
        interval: steps between those of φ; the authors' code: 50.
        held_out: judge by the images of the data module's `meta_split`, rather than by another training batch.
        optimizer: of φ; the authors' SGD at 0.001 with momentum 0.9 and weight decay 1e-4.
        clip: largest norm of φ's gradient; None leaves it.
        terms: of the Neumann series beyond the first.
        eta: η of the series.

    On several devices a φ with hidden layers of mean losses (`per_sample` False) has H with each device's own means in
    φ's slope, which at the default η changes nothing that could be seen.

    Raises:
        InputError: values out of range; in a step, `per_sample` where a task lacks a loss for each image.
    """

    computes_gradients = True
    network: nn.Sequential
    steps: Tensor

    def __init__(
        self,
        hidden: Sequence[int] = (),
        per_sample: bool = True,
        interval: int = 50,
        held_out: bool = True,
        optimizer: MakeOptimizer = lambda params: SGD(params, lr=1e-3, momentum=0.9, weight_decay=1e-4),
        clip: float | None = 25.0,
        terms: int = 3,
        eta: float = 1e-4,
    ) -> None:
        super().__init__(optimizer, clip)
        check_series(terms, eta)
        if not isinstance(hidden, Sequence):
            raise InputError(f"`hidden` must be a list of sizes, such as [3]. Found hidden={hidden!r}.")
        if interval < 1 or any(size < 1 for size in hidden):
            raise InputError(
                f"`interval` and the sizes in `hidden` must be at least 1. Found {interval} and {list(hidden)}."
            )
        self.hidden = tuple(hidden)
        self.per_sample = self.by_image = per_sample
        self.interval = interval
        self.judges_by: Literal["train", "meta"] | None = "meta" if held_out else "train"
        self.trains_aside = True
        self.terms = terms
        self.eta = eta

    def bind(self, names: Sequence[str]) -> None:
        """See `Combiner.bind`."""
        sizes = [len(names), *self.hidden, 1]
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(sizes)):
            last = number == len(self.hidden)
            linear = nn.Linear(before, after, bias=not last)
            nn.init.constant_(linear.weight, 1.0) if not self.hidden else nn.init.uniform_(linear.weight)
            if not last:
                nn.init.zeros_(linear.bias)
            layers += [linear] if last else [linear, nn.Softplus()]
        self.network = nn.Sequential(*layers)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        super().bind(names)

    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """See `Combiner.forward`; φ's step is taken before."""
        self.steps += 1
        if context.learns and int(self.steps) % self.interval == 0:
            self.learn_network(context)
        if not self.hidden:
            self.note("weight", next(self.network.parameters())[0].clone())
        return self.combined(losses, {name: p.clone() for name, p in self.network.named_parameters()}, context)

    def combined(self, losses: TaskLosses, parameters: dict[str, Tensor], context: StepContext) -> Tensor:
        """L_T by a φ with these parameters.

        Of mean losses φ gets those over all devices, and each device its share of the gradient.
        """
        if self.per_sample:
            inputs = losses.matrix()
        else:
            means = losses.means()
            inputs = (means + (context.average({"means": means.detach()})["means"] - means).detach())[None]
        with torch.autocast(inputs.device.type, enabled=False):
            total: Tensor = functional_call(self.network, parameters, (inputs,)).mean()
        return total + losses.means()[0] if self.hidden else total

    def learn_network(self, context: StepContext) -> None:
        """φ's step."""
        context.check_shared()
        with torch.enable_grad(), torch.autocast(context.shared[0].device.type, enabled=False):
            phi = {name: p.detach().requires_grad_() for name, p in self.network.named_parameters()}
            judged, training = context.judged(), self.combined(context.another(), phi, context)
            slopes = implicit_gradient(
                judged, training, context.shared, list(phi.values()), self.terms, self.eta, context.average
            )
        self.move([slope / self.eta for slope in slopes], context)
        with torch.no_grad():
            for name, parameter in self.network.named_parameters():
                if name.endswith("weight"):
                    parameter.clamp_(min=0)
