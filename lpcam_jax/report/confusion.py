"""A picture of the confusion matrix."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from .figures import write_figure
from .names import shorten

_MAX_NUMBERED = 25  # up to this many classes, the cells show their numbers
_CELL = 0.42, 0.17  # side in inches of a cell with a number, and of one without


def confusion_picture(path: Path, matrices: Mapping[str, np.ndarray], class_names: Sequence[str]) -> None:
    """Write a PNG with one panel per method: the percentage of each true class's pixels, by predicted class.

    Args:
        path: the PNG file.
        matrices: method -> int (c + 1, c + 1), pixels, [truth, prediction], background first; the row of a class that
            does not occur in the truth stays empty.
        class_names: c names, without the background.

    Raises:
        UserError: the file cannot be written.
    """
    # Imported here: matplotlib takes a second to load.
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure

    names = [shorten(name, lambda text: len(text) <= 16) for name in ["background", *class_names]]
    numbered = len(names) <= _MAX_NUMBERED
    cell = _CELL[0] if numbered else _CELL[1]
    side = max(cell * len(names), 2.5)
    figure = Figure(
        figsize=(1.6 + (side + 0.5) * len(matrices), side + 2), dpi=150 if numbered else 110, layout="constrained"
    )
    panels = figure.subplots(1, len(matrices), squeeze=False, sharey=True)[0]
    for axes, (method, matrix) in zip(panels, matrices.items(), strict=True):
        totals = matrix.sum(axis=1, keepdims=True)
        percent = np.where(totals > 0, 100 * matrix / np.maximum(totals, 1), np.nan)
        # Cividis suits colour-blind readers and grey prints; the square root makes rare confusions visible.
        image = axes.imshow(percent, cmap="cividis", norm=PowerNorm(0.5, vmin=0, vmax=100))
        ticks = {"fontsize": 8 if numbered else 7, "parse_math": False}
        axes.set_xticks(range(len(names)), names, rotation=90, **ticks)
        axes.set_yticks(range(len(names)), names, **ticks)
        axes.set_xlabel("prediction")
        axes.set_title(method, loc="left", parse_math=False)
        axes.spines[:].set_visible(False)
        if numbered:
            for (row, column), value in np.ndenumerate(percent):
                if value >= 0.5:
                    ink = "black" if value > 25 else "white"
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    panels[0].set_ylabel("truth")
    figure.colorbar(image, ax=list(panels), shrink=0.6, label="% of the pixels of a true class")
    write_figure(path, figure)
