"""Which images share a label."""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from auxlight.errors import InputError
from auxlight.functional import decided_label
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.view import View

MARGIN, GAP, LETTERS = 88, 2, 13


class LabelGrids(View):
    """For each primary class a grid of validation images, one row per auxiliary label of its block.

    A row shows the images for which its label is the most probable one, the surest first; an empty row is a label that
    none has. Beside it stand the label's name and how many images have it. Images for which no label is the most
    probable one have a row of their own, the last.

    Args:
        columns: images per row at most.
        max_classes: primary classes at most, the first ones.
        side: pixels that an image is shown with.

    Raises:
        InputError: a number below 1.
    """

    def __init__(self, columns: int = 8, max_classes: int = 20, side: int = 32) -> None:
        for name, value in (("columns", columns), ("max_classes", max_classes), ("side", side)):
            if value < 1:
                raise InputError(f"`{name}` of LabelGrids must be at least 1. Found {name}={value}.")
        self.columns = columns
        self.max_classes = max_classes
        self.side = side

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        if evidence.target is None or not board.has_pictures:
            return
        starts, sizes = evidence.module.hierarchy.starts.tolist(), evidence.module.hierarchy.psi
        probabilities = evidence.target.probabilities.cpu()
        confidence, label = probabilities.max(1).values.numpy(), decided_label(probabilities).numpy()
        primary = evidence.batch.primary.cpu().numpy()
        image = evidence.image.permute(0, 2, 3, 1).numpy()
        surest = np.argsort(-confidence, kind="stable")
        for y, name in enumerate(evidence.data.class_names[: self.max_classes]):
            own = surest[primary[surest] == y]
            rows = [own[label[own] == k] for k in (*range(starts[y], starts[y] + sizes[y]), -1)]
            rows = rows if len(rows[-1]) else rows[:-1]
            board.image(f"label_grid/{name}", self._picture(image, rows, sizes[y]))

    def _picture(self, image: np.ndarray, rows: list[np.ndarray], size: int) -> np.ndarray:
        step = self.side + GAP
        canvas = Image.new("RGB", (MARGIN + self.columns * step, len(rows) * step), "white")
        draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LETTERS)
        for number, chosen in enumerate(rows):
            draw.text((4, number * step + 2), f"label {number}" if number < size else "no label", "black", font)
            draw.text((4, number * step + 16), f"{len(chosen)} images", "gray", font)
            for column, position in enumerate(chosen[: self.columns].tolist()):
                tile = Image.fromarray(image[position]).resize((self.side, self.side), Image.Resampling.NEAREST)
                canvas.paste(tile, (MARGIN + column * step, number * step))
        return np.asarray(canvas)
