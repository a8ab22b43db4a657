"""Batches beside the training loop: those that labels are learned from, or judged by."""

import itertools
from collections.abc import Iterator
from typing import Any

from auxlight.batch import Batch
from auxlight.datamodules.base import ImageDataModule, Split


class BatchStreams:
    """Endless streams of a data module's batches, by name; with every epoch each starts anew, in its own order."""

    def __init__(self) -> None:
        self._epoch = -1
        self._streams: dict[str, Iterator[Batch]] = {}

    def next(self, data: ImageDataModule, stream: str, split: Split, epoch: int) -> Batch:
        """The next batch of the stream in this epoch."""
        if self._epoch != epoch:
            self._epoch, self._streams = epoch, {}
        if stream not in self._streams:
            passes = (data.training_batches(f"{stream} {n}", epoch, split=split) for n in itertools.count())
            self._streams[stream] = itertools.chain.from_iterable(passes)
        return next(self._streams[stream])

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins anew."""
        return {"_epoch": -1, "_streams": {}}
