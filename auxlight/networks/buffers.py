"""Forward passes that leave no trace in batch norm's statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def kept_buffers(network: nn.Module) -> Iterator[None]:
    """Inside this block a network's buffers may change (batch norm's statistics); afterwards they are as before."""
    kept = [(buffer, buffer.clone()) for buffer in network.buffers()]
    try:
        yield
    finally:
        for buffer, value in kept:
            buffer.copy_(value)
