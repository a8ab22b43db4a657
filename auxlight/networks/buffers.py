"""Forward passes whose trace in batch norm's statistics is wiped out, or kept for later."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

# Where a buffer is: a module's dictionary and the name in it; and what is there.
Slot = tuple[dict[str, Tensor | None], str, Tensor | None]


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Inside this block a network's buffers may change (batch norm's statistics); afterwards they are as before."""
    with lent_buffers(network.modules()):
        yield


@contextmanager
def lent_buffers(parts: Iterable[nn.Module]) -> Iterator[list[Slot]]:
    """Inside this block modules work on copies of their buffers, which a graph may refer to later on.

    Args:
        parts: the modules themselves, without their children.

    Yields:
        A list that holds, after the block, what has become of the copies; the modules have their own buffers back.
    """
    own = [(part._buffers, name, value) for part in parts for name, value in part._buffers.items()]
    copies = {id(value): value.clone() for _, _, value in own if value is not None}
    for slots, name, value in own:
        slots[name] = None if value is None else copies[id(value)]
    left: list[Slot] = []
    try:
        yield left
    finally:
        left += [(slots, name, slots[name]) for slots, name, _ in own]
        for slots, name, value in own:
            slots[name] = value


def put_into_place(left: list[Slot]) -> None:
    """Give modules the values that `lent_buffers` left behind."""
    for slots, name, value in left:
        present = slots[name]
        if present is not None and value is not None and present.shape == value.shape:
            present.copy_(value)
        else:
            slots[name] = None if value is None else value.clone()


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode for a block; afterwards every submodule is in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
