"""The scores of a run as plain text."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..config.registry import title
from .names import columns, shorten

_WIDTH, _NARROWEST, _WIDEST = 100, 8, 20  # of a table, of the column of the methods
_METRICS = {"miou": "mIoU", "fp": "FP", "fn": "FN", "precision": "Prec.", "recall": "Recall"}
_WIDTHS = (5, 5, 5, 6, 6)
_FAITHFULNESS = {
    "insertion": ("insertion", "higher"),
    "deletion": ("deletion", "lower"),
    "average_drop": ("avg. drop", "lower"),
    "increase": ("increase", "higher"),
    "road": ("ROAD", "higher"),
}


def seed_tables(scores: Mapping[str, Mapping[str, Any]], class_names: Sequence[str]) -> Iterator[str]:
    """Tables of the seeds of several methods.

    Args:
        scores: method -> what `SeedScoring.report` returns.
        class_names: c names, without the background.

    Yields:
        Table 1, a heading, and the IoU of every class.
    """
    yield table1({title(method): report for method, report in scores.items()})
    yield "IoU of each class, at each method's best threshold:"
    yield class_table(class_names, {title(method): report["best"]["iou"] for method, report in scores.items()})


def mask_tables(scores: Mapping[str, Any], class_names: Sequence[str]) -> Iterator[str]:
    """Tables of masks, which have no threshold.

    Args:
        scores: the "scores" that `score_masks` returns.
        class_names: c names, without the background.

    Yields:
        Table 1's columns in two lines, a heading, and the IoU of every class.
    """
    yield " ".join(name.rjust(width) for name, width in zip(_METRICS.values(), _WIDTHS, strict=True))
    yield " ".join(_percent(scores[key]).rjust(width) for key, width in zip(_METRICS, _WIDTHS, strict=True))
    yield "IoU of each class:"
    yield class_table(class_names, {"masks": scores["iou"]})


def faithfulness_table(scores: Mapping[str, Mapping[str, float]]) -> str:
    """A table of faithfulness scores in percent, one row per method, and the direction that is better.

    Args:
        scores: method -> fractions `insertion`, `deletion`, `average_drop`, `increase` and `road`.

    Returns:
        The table.
    """
    width = max(len(name) for name, _ in _FAITHFULNESS.values())
    rows = {
        "method": [name for name, _ in _FAITHFULNESS.values()],
        "better": [direction for _, direction in _FAITHFULNESS.values()],
        **{title(method): [_percent(values[key]) for key in _FAITHFULNESS] for method, values in scores.items()},
    }
    first = _first_width(rows)
    lines = [" ".join([_fit(name, first), *(value.rjust(width) for value in values)]) for name, values in rows.items()]
    return "\n".join([*lines[:2], "-" * len(lines[0]), *lines[2:]])


def empty_maps_line(counts: Mapping[str, int]) -> Iterator[str]:
    """Yield a line with the number of all-zero maps of each method, method -> count; nothing if there are none."""
    if any(counts.values()):
        numbers = ", ".join(f"{title(method)} {count}" for method, count in counts.items())
        yield f"maps that are zero everywhere (nothing was found): {numbers}"


def table1(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Compare the seeds of each method at its own best threshold and at the one fixed in advance.

    Args:
        rows: method -> {"best": scores, "fixed": scores}, where scores has `threshold` and, as fractions in [0, 1],
            `miou`, `fp`, `fn`, `precision` and `recall`.

    Returns:
        The table; all but the thresholds are in percent.
    """
    groups = ("best", "fixed")
    names, first = _cells(["at", *_METRICS.values()]), _first_width(rows)
    lines = [
        " | ".join([" " * first, *(f"{group} threshold".center(len(names)) for group in groups)]).rstrip(),
        " | ".join(["method".ljust(first), *(names for _ in groups)]),
        "-+-".join(["-" * first, *("-" * len(names) for _ in groups)]),
    ]
    for method, scores in rows.items():
        parts = [_fit(method, first)]
        for group in groups:
            values = scores[group]
            at = f"{values['threshold']:.3f}"
            parts.append(_cells([at, *(_percent(values[key]) for key in _METRICS)]))
        lines.append(" | ".join(parts))
    return "\n".join(lines)


def class_table(class_names: Sequence[str], ious: Mapping[str, Sequence[float | None]]) -> str:
    """IoU of every class in percent, one column per method.

    Args:
        class_names: c names, without the background.
        ious: method -> c + 1 fractions in [0, 1], background first; None or NaN, shown as "-", for a class that does
            not occur.

    Returns:
        The table.
    """
    names = ["background", *(_fit(name, 0, most=_WIDTH) for name in class_names)]
    widths = {method: max(columns(method), 5) for method in ious}
    room = _WIDTH - sum(width + 2 for width in widths.values())
    first = min(max(map(columns, ["class", *names])), room)
    titles = (" " * (width - columns(method)) + method for method, width in widths.items())
    lines = ["  ".join([_fit("class", first), *titles])]
    lines.append("  ".join("-" * width for width in [first, *widths.values()]))
    for k, name in enumerate(names):
        values = (_percent(ious[method][k]).rjust(width) for method, width in widths.items())
        lines.append("  ".join([_fit(name, first), *values]))
    return "\n".join(lines)


def _first_width(methods: Iterable[str]) -> int:
    """Width of the column of the methods."""
    return min(max(_NARROWEST, *map(columns, methods)), _WIDEST)


def _percent(fraction: float | None) -> str:
    return "-" if fraction is None or math.isnan(fraction) else f"{100 * fraction:.1f}"


def _cells(values: Sequence[str]) -> str:
    return " ".join(value.rjust(width) for value, width in zip(values, (5, *_WIDTHS), strict=True))


def _fit(name: str, width: int, *, most: int | None = None) -> str:
    """The name at this width; shortened only to `most` if that is given."""
    text = shorten(name, lambda text: columns(text) <= (most or width))
    return text + " " * (width - columns(text))
