"""A plot of the seeds' mIoU against the background threshold."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..config.registry import title as title_of
from .figures import write_figure
from .names import counted

# Okabe and Ito's colours, which colour-blind readers can tell apart; the dashes distinguish the lines in grey.
_STYLES = [
    ("#0072B2", "--"),
    ("#E69F00", "-."),
    ("#009E73", "-"),
    ("#CC79A7", ":"),
    ("#D55E00", (0, (7, 2))),
    ("#56B4E9", (0, (5, 1, 1, 1, 1, 1))),
    ("#000000", (0, (1, 3))),
]


def seed_curves(path: Path, scores: Mapping[str, Mapping[str, Any]], *, pictures: int) -> None:
    """Plot the threshold curves of several methods' seeds.

    Args:
        path: the PNG file.
        scores: method -> what `SeedScoring.report` returns.
        pictures: how many were scored.

    Raises:
        UserError: the file cannot be written.
    """
    curves = {title_of(method): np.array(report["curve"]["miou"], float) for method, report in scores.items()}
    thresholds = np.array(next(iter(scores.values()))["curve"]["threshold"])
    threshold_curve(path, thresholds, curves, title=f"seeds of {counted(pictures, 'picture')}, by threshold")


def threshold_curve(path: Path, thresholds: np.ndarray, curves: dict[str, np.ndarray], *, title: str) -> None:
    """Write a PNG with one line per method; the best point of each is marked, and given in the legend.

    Args:
        path: the PNG file.
        thresholds: float (t,), ascending.
        curves: method -> float (t,), mIoU in [0, 1].
        title: of the plot.

    Raises:
        UserError: the file cannot be written.
    """
    # Imported here: matplotlib takes a second to load.
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    lines, labels = [], []
    for k, (method, curve) in enumerate(curves.items()):
        color, dashes = _STYLES[k % len(_STYLES)]
        best = int(np.argmax(curve))
        x, y = float(thresholds[best]), float(curve[best])
        labels.append(f"{method}: {100 * y:.1f} % at {x:.3g}")
        line = {"color": color, "linestyle": dashes, "linewidth": 2}
        dot = {"marker": "o", "markevery": [best], "markersize": 9, "markeredgecolor": "white"}
        lines += axes.plot(thresholds, curve, **line, **dot)
        axes.vlines(x, 0, y, color=color, linewidth=0.8, alpha=0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("background threshold")
    axes.set_ylabel("mIoU")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_title(title, loc="left", parse_math=False)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    options = {"title": "best point", "alignment": "left", "handlelength": 3.5, "frameon": False}
    legend = axes.legend(lines, map(str, range(len(lines))), **options)
    # Afterwards, for names come from files: matplotlib leaves out a label that begins with _, and $ begins a formula.
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_text(label)
        text.set_parse_math(False)
    write_figure(path, figure)
