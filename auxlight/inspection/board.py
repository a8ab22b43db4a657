"""Where views write to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor


class Board:
    """Scalars go to every logger, all else to TensorBoard; without a TensorBoard logger it goes nowhere.

    Args:
        loggers: of the trainer.
        step: global step.
    """

    def __init__(self, loggers: Sequence[Logger], step: int) -> None:
        self._loggers = loggers
        self._writers = [logger.experiment for logger in loggers if isinstance(logger, TensorBoardLogger)]
        self.step = step

    @property
    def has_pictures(self) -> bool:
        """Whether anything but scalars is seen."""
        return bool(self._writers)

    def scalars(self, values: dict[str, float]) -> None:
        """Named numbers; nan is left out."""
        known = {name: value for name, value in values.items() if value == value}
        for logger in self._loggers if known else ():
            logger.log_metrics(known, self.step)

    def image(self, name: str, image: np.ndarray) -> None:
        """A picture (H, W, 3) uint8."""
        for writer in self._writers:
            writer.add_image(name, image, self.step, dataformats="HWC")

    def figure(self, name: str, figure: Figure) -> None:
        """A plot, made without pyplot and its global state."""
        if self._writers:
            canvas: Any = FigureCanvasAgg(figure)
            canvas.draw()
            self.image(name, np.asarray(canvas.buffer_rgba())[..., :3])

    def histogram(self, name: str, values: Tensor) -> None:
        """A distribution of values (N,); of those that are finite."""
        values = values[values.isfinite()]
        for writer in self._writers if len(values) else ():
            writer.add_histogram(name, values, self.step)

    def embedding(
        self, name: str, vectors: Tensor, metadata: Sequence[Sequence[str]], header: Sequence[str], images: Tensor
    ) -> None:
        """Points (N, D) for the projector.

        Args:
            name: of the embedding.
            vectors: (N, D).
            metadata: a row of values for each point.
            header: their names.
            images: (N, 3, H, W) in [0, 1], each point's picture.
        """
        for writer in self._writers:
            writer.add_embedding(
                vectors, [list(row) for row in metadata], images, self.step, name, metadata_header=list(header)
            )
