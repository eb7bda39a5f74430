"""The sweep over the method's parameters: a figure of a panel each (paper, Figure 5) and a table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .figures import write_figure
from .names import counted

_NAMES = {
    "threshold": ("τ", "τ: CAM splits the features"),
    "mu_f": ("μ_f", "μ_f: class score above"),
    "mu_b": ("μ_b", "μ_b: context score below"),
    "clusters": ("K", "K: clusters"),
}
# As in curve.py: Okabe and Ito's colours, and dashes that distinguish the lines in grey.
_CAM = {"color": "#0072B2", "linestyle": "--"}
_LPCAM = {"color": "#009E73", "linestyle": "-"}


def sweep_figure(path: Path, result: Mapping[str, Any]) -> None:
    """Write a PNG: mIoU over tau, mu_f, mu_b and K, at each setting's best threshold, and over the seed threshold.

    Lines are means, bands the standard deviation over seeds; the run's own value is ringed.

    Args:
        path: the PNG file.
        result: what `sweep_parameters` returns.

    Raises:
        UserError: the file cannot be written.
    """
    # Imported here: matplotlib takes a second to load.
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(15, 3.4), dpi=150, layout="constrained")
    *panels, curves = figure.subplots(1, 1 + len(result["settings"]))
    for axes in panels[1:]:
        axes.sharey(panels[0])
        axes.tick_params(labelleft=False)
    cam = result["cam"]
    for axes, (parameter, points) in zip(panels, result["settings"].items(), strict=True):
        values = [point["value"] for point in points]
        mean, deviation = _mean([[seed["best"]["miou"] for seed in point["seeds"]] for point in points])
        axes.axhline(cam["best"]["miou"], **_CAM, linewidth=1.5, label="CAM")
        axes.plot(values, mean, **_LPCAM, marker="o", markersize=4, label="LPCAM")
        axes.fill_between(values, mean - deviation, mean + deviation, color=_LPCAM["color"], alpha=0.2, linewidth=0)
        own = [point["own"] for point in points].index(True)
        axes.plot(values[own], mean[own], "o", markersize=10, markerfacecolor="none", color="black", label="the run's")
        axes.set_xlabel(_NAMES[parameter][1])
    panels[0].set_ylabel("mIoU, best threshold")
    panels[0].legend(frameon=False)

    thresholds = cam["curve"]["threshold"]
    curves.plot(thresholds, cam["curve"]["miou"], **_CAM, linewidth=2, label="CAM")
    mean, deviation = _mean(np.transpose([seed["curve"]["miou"] for seed in result["lpcam"]]))
    curves.plot(thresholds, mean, **_LPCAM, linewidth=2, label="LPCAM")
    curves.fill_between(thresholds, mean - deviation, mean + deviation, color=_LPCAM["color"], alpha=0.2, linewidth=0)
    curves.set_ylim(bottom=0)
    curves.set_xlabel("seed threshold")
    curves.set_ylabel("mIoU")
    curves.legend(frameon=False)
    for axes in (*panels, curves):
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    seeds = len(result["lpcam"])
    figure.suptitle(
        f"seeds of {counted(result['scored'], 'picture')}; {counted(seeds, 'clustering seed')}", x=0.01, ha="left"
    )
    write_figure(path, figure)


def sweep_table(result: Mapping[str, Any]) -> str:
    """The same numbers in Markdown, mean ± standard deviation over seeds; the run's own values are bold.

    Args:
        result: what `sweep_parameters` returns.

    Returns:
        The table.
    """
    lines = [
        "| | | mIoU at best | threshold | mIoU at 0.3 | FP | FN | prototypes a class | a context |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| CAM | | {' | '.join(_cells([result['cam']]))} | | |",
    ]
    for parameter, points in result["settings"].items():
        for point in points:
            value = f"**{point['value']:g}**" if point["own"] else f"{point['value']:g}"
            seeds = point["seeds"]
            counts = [
                f"{np.mean([seed[kind] for seed in seeds]):.1f}" for kind in ("class_prototypes", "context_prototypes")
            ]
            lines.append(f"| {_NAMES[parameter][0]} | {value} | {' | '.join([*_cells(seeds), *counts])} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean of fractions in percent and, if there are several, their standard deviation."""
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{deviation}"


def _cells(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    best = [report["best"] for report in reports]
    return [
        spread([scores["miou"] for scores in best]),
        f"{np.mean([scores['threshold'] for scores in best]):.2f}",
        spread([report["fixed"]["miou"] for report in reports]),
        *(f"{100 * np.mean(np.array([scores[key] for scores in best], float)):.1f}" for key in ("fp", "fn")),
    ]


def _mean(values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation over the last axis; the latter is 0 for a single value."""
    values = np.array(values, float)
    deviation = values.std(axis=-1, ddof=1) if values.shape[-1] > 1 else np.zeros(values.shape[:-1])
    return values.mean(axis=-1), deviation
