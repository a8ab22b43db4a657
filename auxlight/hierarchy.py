"""Which auxiliary classes belong to which primary class."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import torch
from torch import Tensor

from auxlight.errors import InputError


@dataclass(frozen=True)
class LabelHierarchy:
    """Each primary class y owns a block of ψ_y consecutive auxiliary classes; blocks may differ in size.

    Example: ``LabelHierarchy((2, 3))`` has 2 primary classes and K = 5 auxiliary classes; class 0 owns {0, 1} and
    class 1 owns {2, 3, 4}.

    Attributes:
        psi: (ψ_0, …, ψ_{C−1}), block sizes, each ≥ 1.

    Raises:
        InputError: `psi` is empty or holds something other than positive integers.
    """

    psi: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = tuple(self.psi)
        if not sizes or any(isinstance(size, bool) or not isinstance(size, Integral) or size < 1 for size in sizes):
            raise InputError(
                "`psi` must be a positive integer or a list of them, one per primary class. "
                f"Found psi={list(self.psi)}."
            )
        object.__setattr__(self, "psi", tuple(int(size) for size in sizes))

    @classmethod
    def of(cls, value: "LabelHierarchy | Sequence[int]") -> "LabelHierarchy":
        """`value` itself, or the hierarchy of these block sizes."""
        return value if isinstance(value, LabelHierarchy) else cls(tuple(value))

    @classmethod
    def build(cls, num_primary: int, psi: int | Sequence[int]) -> "LabelHierarchy":
        """Blocks for `num_primary` classes: all of size `psi`, or one size per class.

        Raises:
            InputError: a list whose length is not `num_primary`, or sizes below 1.
        """
        if isinstance(psi, Integral) and not isinstance(psi, bool):
            if psi < 1:
                raise InputError(f"`psi` must be a positive integer or a list of them. Found psi={psi}.")
            psi = int(psi)
        if not isinstance(psi, Sequence):
            return cls((psi,) * num_primary)
        if len(psi) != num_primary:
            raise InputError(
                f"`psi` must be one integer or a list of {num_primary}, one per primary class. "
                f"Found a list of {len(psi)}: psi={list(psi)}."
            )
        return cls(tuple(psi))

    @classmethod
    def from_parents(cls, parents: Sequence[int]) -> tuple["LabelHierarchy", Tensor]:
        """The hierarchy behind arbitrary sub-class ids.

        Args:
            parents: the primary class of each sub-class.

        Returns:
            The hierarchy, and (K,) int64: the auxiliary class (block order) of each sub-class id. Inside a block,
            sub-classes keep the order of their ids.

        Raises:
            InputError: a primary class without a sub-class.
        """
        parent = torch.as_tensor(parents, dtype=torch.int64)
        if parent.ndim != 1 or (parent < 0).any():
            raise InputError(f"`parents` must be one primary class per sub-class, each ≥ 0. Found {list(parents)}.")
        sizes = torch.bincount(parent)
        order = torch.argsort(parent, stable=True)
        block_index = torch.empty_like(order)
        block_index[order] = torch.arange(len(order))
        if (sizes == 0).any():
            childless = int((sizes == 0).nonzero()[0])
            raise InputError(f"Every primary class must own a sub-class. Found none for primary class {childless}.")
        return cls(tuple(sizes.tolist())), block_index

    @property
    def num_primary(self) -> int:
        """C."""
        return len(self.psi)

    @property
    def num_auxiliary(self) -> int:
        """K = Σψ."""
        return sum(self.psi)

    @cached_property
    def sizes(self) -> Tensor:
        """(C,) int64, ψ_y."""
        return torch.tensor(self.psi)

    @cached_property
    def starts(self) -> Tensor:
        """(C,) int64, first auxiliary class of each block."""
        return self.sizes.cumsum(0) - self.sizes

    @cached_property
    def parents(self) -> Tensor:
        """(K,) int64, primary class of each auxiliary class."""
        return torch.arange(self.num_primary).repeat_interleave(self.sizes)

    @cached_property
    def mask(self) -> Tensor:
        """(C, K) bool, row y marks the block of class y."""
        return self.parents == torch.arange(self.num_primary)[:, None]

    def to_global(self, primary: Tensor, relative: Tensor) -> Tensor:
        """Auxiliary class of the `relative`-th member (counted modulo ψ_y) of each primary class's block."""
        device = primary.device
        return self.starts.to(device)[primary] + relative % self.sizes.to(device)[primary]

    def to_relative(self, auxiliary: Tensor) -> Tensor:
        """Position of each auxiliary class inside its block, in [0, ψ_y)."""
        device = auxiliary.device
        return auxiliary - self.starts.to(device)[self.parents.to(device)[auxiliary]]
