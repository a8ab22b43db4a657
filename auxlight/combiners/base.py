"""How the losses of the tasks become one update of the main network."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from auxlight.combiners.context import StepContext
from auxlight.errors import InputError


class TaskLosses(NamedTuple):
    """Losses of one batch, per sample. The tasks are numbered from 0, the primary one; M is their number with it.

    Attributes:
        primary: (n,), of the images whose primary label is known; n = B but in semi-supervised data.
        auxiliary: one (n_m,) per auxiliary task, unweighted.
        weights: one (n_m,) per auxiliary task: its λ_i times the module's λ.
    """

    primary: Tensor
    auxiliary: tuple[Tensor, ...]
    weights: tuple[Tensor, ...]

    def samples(self) -> list[Tensor]:
        """Weighted losses of each task, (n_m,): ℓ_i of the primary one, λ_i ℓ_i of the others."""
        return [self.primary, *(w * loss for w, loss in zip(self.weights, self.auxiliary, strict=True))]

    def scalars(self) -> list[Tensor]:
        """The mean of each task's `samples`, 0 where it has none; one's graph is not the others'."""
        return [mean_or_zero(loss) for loss in self.samples()]

    def means(self) -> Tensor:
        """(M,): the same as one tensor."""
        return torch.stack(self.scalars())

    def matrix(self) -> Tensor:
        """(B, M): the tasks' `samples` side by side.

        Raises:
            InputError: a task without a loss for each image.
        """
        samples = self.samples()
        sizes = [len(loss) for loss in samples]
        if len(set(sizes)) > 1:
            raise InputError(
                "A rule for single images needs a loss of each task for every image of the batch. Found "
                f"{', '.join(map(str, sizes))} losses of the tasks, the primary one first: choose another combiner "
                "(of CombinationNetwork: `per_sample: false`), or leave `num_labelled` out."
            )
        return torch.stack(samples, 1)


def mean_or_zero(loss: Tensor) -> Tensor:
    """The mean; of nothing, a 0 without a gradient."""
    return loss.sum() / max(1, len(loss))


class Combiner(nn.Module, ABC):
    """Turns the losses of the tasks into the one that is minimised.

    An own rule is one class::

        class Square(Combiner):                      # L = Σ_m L_m²
            def forward(self, losses, context):
                return losses.means().square().sum()

    A rule that works on the tasks' gradients is a `GradientCombiner`, one that learns by a step of its own a
    `LearnedCombiner`. What a rule remembers belongs into buffers, so that runs resume.

    Attributes:
        names: of the tasks, ("primary", …), from `bind` on.
        judges_by: images whose primary loss the rule asks for beside the step: "train", "meta" (those held out by the
            data module's `meta_split`) or None.
        trains_aside: whether it asks for the losses of further training batches.
        replays: whether it asks for derivatives of the losses of single images.
        by_image: whether it needs a loss of each task for every image, which semi-supervised data lack.
        computes_gradients: whether it takes derivatives itself, which no loss scaling (fp16) reaches.
    """

    judges_by: Literal["train", "meta"] | None = None
    trains_aside = False
    replays = False
    by_image = False
    computes_gradients = False

    def __init__(self) -> None:
        super().__init__()
        self.names: tuple[str, ...] = ()
        self.report: dict[str, Tensor] = {}

    def bind(self, names: Sequence[str]) -> None:
        """Called once by the module that uses this rule; what depends on the number of tasks is made here.

        Args:
            names: of the tasks, the primary one first.

        Raises:
            InputError: a rule that is bound already.
        """
        if self.names:
            raise InputError(
                f"A combiner belongs to one module. Found a {type(self).__name__} that is bound to another: make one "
                "for each."
            )
        self.names = tuple(names)

    @abstractmethod
    def forward(self, losses: TaskLosses, context: StepContext) -> Tensor:
        """Scalar to backpropagate.

        Args:
            losses: of a training batch, with their graph.
            context: the network that they come from, and what else can be asked.
        """

    def note(self, quantity: str, values: Tensor, first: int = 0) -> None:
        """Have one value per task logged, as combiner/{quantity}_{task}, for the tasks from number `first` on."""
        names = self.names[first:] or tuple(map(str, range(first, first + len(values))))
        for name, value in zip(names, values.detach(), strict=True):
            self.report[f"{quantity}_{name}"] = value
