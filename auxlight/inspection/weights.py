"""Which samples get weight."""

import numpy as np
from matplotlib.figure import Figure

from auxlight.inspection.board import Board
from auxlight.inspection.evidence import Evidence
from auxlight.inspection.view import View


class WeightPlots(View):
    """A histogram of the last epoch's weights λ_i, and for validation images the weight against the primary loss.

    Where all images weigh the same there is no plot.
    """

    def show(self, evidence: Evidence, board: Board) -> None:
        """See `View.show`."""
        if evidence.trained is not None:
            board.histogram("label_weights", evidence.trained.weight)
        if evidence.target is None or not board.has_pictures:
            return
        weight, losses, primary = (
            part.cpu().numpy() for part in (evidence.target.weight, evidence.losses, evidence.batch.primary)
        )
        finite = np.isfinite(weight) & np.isfinite(losses)
        weight, losses, primary = weight[finite], losses[finite], primary[finite]
        if not len(weight) or weight.max() - weight.min() <= 1e-6 * weight.max():
            return
        figure = Figure(figsize=(5.5, 3.8), dpi=80)
        axes = figure.add_axes((0.13, 0.13, 0.82, 0.77))
        points = axes.scatter(losses, weight, c=primary, s=8, cmap="tab20")
        axes.set_xlabel("primary loss", fontsize=8)
        axes.set_ylabel("weight of the label", fontsize=8)
        axes.set_title(f"{len(weight)} validation images", fontsize=9)
        if weight.min() > 0:
            axes.set_yscale("log", base=2)
        axes.tick_params(labelsize=7)
        figure.colorbar(points, ax=axes, label="primary class").ax.tick_params(labelsize=7)
        board.figure("label_weights/against_primary_loss", figure)
