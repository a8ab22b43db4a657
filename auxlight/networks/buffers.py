"""Forward passes whose trace in batch norm's statistics is wiped out, or kept for later."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Inside this block a network's buffers may change (batch norm's statistics); afterwards they are as before."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)


@contextmanager
def lent_buffers(network: nn.Module) -> Iterator[list[Tensor]]:
    """Inside this block the network works on copies of its buffers, which a graph may refer to later on; their list.

    Afterwards the network has its own ones back, as they were.
    """
    own = [(part._buffers, name, value) for part in network.modules() for name, value in part._buffers.items()]
    copies = {id(value): value.clone() for _, _, value in own if value is not None}
    for slots, name, value in own:
        slots[name] = None if value is None else copies[id(value)]
    try:
        yield list(copies.values())
    finally:
        for slots, name, value in own:
            slots[name] = value
