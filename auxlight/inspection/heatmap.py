"""A table of shares as a picture."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from auxlight.hierarchy import LabelHierarchy

LEGIBLE = 24  # rows or columns that can have names


def block_names(hierarchy: LabelHierarchy) -> list[str]:
    """K names of auxiliary classes that nobody named: primary class and place in its block."""
    return [f"{y}·{place}" for y, size in enumerate(hierarchy.psi) for place in range(size)]


def heatmap(
    shares: np.ndarray, title: str, rows: tuple[str, Sequence[str]], columns: tuple[str, Sequence[str]]
) -> Figure:
    """Colours for shares in [0, 1], with their names where there is room, and their values in small tables.

    Args:
        shares: (R, S); nan stays blank.
        title: of the figure.
        rows: what the rows are, and their names.
        columns: what the columns are, and their names.
    """
    names = [kind[1] if len(kind[1]) <= LEGIBLE else [] for kind in (rows, columns)]
    height, width = (min(6.0, 0.8 + 0.24 * count) for count in shares.shape)
    left, below = (0.45 + 0.075 * max(map(len, own), default=0) for own in names)  # inches for names
    figure = Figure(figsize=(left + width + 0.8, below + height + 0.35), dpi=80)
    axes = figure.add_axes((left / (left + width + 0.8), below / (below + height + 0.35),
                            width / (left + width + 0.8), height / (below + height + 0.35)))  # fmt: skip
    picture = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis", aspect="auto", interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(rows[0], fontsize=8)
    axes.set_xlabel(columns[0], fontsize=8)
    axes.set_yticks(range(len(names[0])), names[0], fontsize=8)
    axes.set_xticks(range(len(names[1])), names[1], fontsize=8, rotation=90)
    if max(shares.shape) > 6:
        figure.colorbar(picture, ax=axes, fraction=0.05, pad=0.02, ticks=[0, 0.5, 1]).ax.tick_params(labelsize=8)
        return figure
    for (row, column), share in np.ndenumerate(shares):
        if share == share:
            colour = "black" if share > 0.6 else "white"
            axes.text(column, row, f"{share:.2f}", ha="center", va="center", fontsize=8, color=colour)
    return figure
