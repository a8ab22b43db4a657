"""The trunk's features as a cloud of points."""

from torch.nn import functional as F

from auxlight.errors import InputError
from auxlight.functional import decided_label
from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.heatmap import block_names
from auxlight.inspection.view import View


class FeatureProjector(View):
    """Features of the validation images for TensorBoard's projector, with primary class, human and learned label.

    Args:
        every_time: at every inspection; by default only at the end of the fit, for the files take some megabytes.
        side: pixels that a point's picture has.

    Raises:
        InputError: a number below 1.
    """

    def __init__(self, every_time: bool = False, side: int = 32) -> None:
        if side < 1:
            raise InputError(f"`side` of FeatureProjector must be at least 1. Found side={side}.")
        self.side = side
        self.only_at_end = not every_time

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        if not board.has_pictures:
            return
        data = evidence.data
        columns = {
            "primary": [data.class_names[y] for y in evidence.batch.primary.tolist()],
            "predicted": [data.class_names[y] for y in evidence.logits.argmax(1).tolist()],
        }
        if evidence.batch.auxiliary is not None:
            columns["human label"] = [data.auxiliary_names[k] for k in evidence.batch.auxiliary.tolist()]
        if evidence.target is not None:
            names = [*block_names(evidence.module.hierarchy), "none"]
            columns["learned label"] = [names[k] for k in decided_label(evidence.target.probabilities).tolist()]
            columns["weight"] = [f"{weight:.3g}" for weight in evidence.target.weight.tolist()]
        size = (self.side, self.side)
        thumbnails = F.interpolate(evidence.image.float(), size=size, mode="bilinear", antialias=True)
        rows = [list(row) for row in zip(*columns.values(), strict=True)]
        board.embedding("features", evidence.features.cpu(), rows, list(columns), thumbnails / 255)
