"""Which class is taken for which, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .figures import write_figure
from .names import shorten

_WRITTEN = 25  # classes up to which the cells hold their number, too
_CELL = 0.42, 0.17  # inches of a cell that holds a number, and of one that does not


def confusion_picture(path: Path, matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> None:
    """Write a PNG with a panel for each method: the pixels of each true class in percent, by what they were taken for.

    matrices:    method -> int (c + 1, c + 1), pixels, [truth, prediction], background first; a class that the truth
                 does not have is an empty row
    class_names: c names, without the background
    """
    # Imported here: matplotlib takes a second to load.
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = [shorten(name, lambda text: len(text) <= 16) for name in ["background", *class_names]]
    written = len(names) <= _WRITTEN
    cell = _CELL[0] if written else _CELL[1]
    side = max(cell * len(names), 2.5)
    figure = Figure(
        figsize=(1.6 + (side + 0.5) * len(matrices), side + 2), dpi=150 if written else 110, layout="constrained"
    )
    panels = figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0]
    for axes, (method, matrix) in zip(panels, matrices.items(), strict=True):
        totals = matrix.sum(axis=1, keepdims=True)
        percent = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
        # Cividis is made for colour-blind readers and reads in grey; the root shows what is seldom confused, too.
        image = axes.imshow(percent, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=100))
        ticks = {"fontsize": 8 if written else 7, "parse_math": False}
        axes.set_xticks(range(len(names)), names, rotation=90, **ticks)
        axes.set_yticks(range(len(names)), names, **ticks)
        axes.set_xlabel("prediction")
        axes.set_title(method, loc="left", parse_math=False)
        axes.spines[:].set_visible(False)
        if written:
            for (row, column), value in np.ndenumerate(percent):
                if value >= 0.5:
                    ink = "black" if value > 25 else "white"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    panels[0].set_ylabel("truth")
    figure.colorbar(image, ax=list(panels), shrink=0.6, label="% of the pixels of a true class")
    write_figure(path, figure)
