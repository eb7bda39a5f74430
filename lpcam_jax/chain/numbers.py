"""The scores that a step of a chain ended with."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from ..config.registry import title


class Number(NamedTuple):
    """One mIoU.

    Attributes:
        what: what was scored.
        miou: in [0, 1].
    """

    what: str
    miou: float


def numbers(folder: Path) -> list[Number]:
    """The scores in the metrics.json of infer.py or `evaluate`; none if nothing was scored."""
    found = []
    if (masks := score(folder, "masks")) is not None:
        found.append(Number("masks", masks))
    for method in part_of(_metrics(folder), "scores"):
        best = best_seeds(folder, method)
        if best and (seeds := number_of(best, "miou")) is not None:
            at = number_of(best, "threshold")
            found.append(Number(f"seeds of {title(method)}" + ("" if at is None else f", at {at:.2f}"), seeds))
    if (masks := score(folder, "pseudo_masks")) is not None:
        found.append(Number("pseudo masks", masks))
    return found


def score(folder: Path, of: str) -> float | None:
    """One of these scores.

    Args:
        folder: of the metrics.json.
        of: "masks"; "pseudo_masks", those beside heat maps; or a method, for its seeds at their best threshold.

    Returns:
        mIoU in [0, 1]; None: there is no such score.
    """
    if of in ("masks", "pseudo_masks"):
        return number_of(part_of(_metrics(folder), "scores" if of == "masks" else of), "miou")
    best = best_seeds(folder, of)
    return number_of(best, "miou") if best else None


def best_seeds(folder: Path, method: str) -> dict[str, Any] | None:
    """The scores of a method's seeds at their best threshold, as in `SeedScoring.report`; None: there are none."""
    return part_of(part_of(part_of(_metrics(folder), "scores"), method), "best") or None


def with_saliency(folder: Path) -> bool:
    """Whether the pseudo masks beside heat maps were made with saliency maps."""
    return bool(part_of(_metrics(folder), "protocol").get("saliency"))


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty: there is no such file, or it is damaged."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def part_of(values: dict[str, Any], name: str) -> dict[str, Any]:
    """An object within an object; empty: it is none."""
    part = values.get(name)
    return part if isinstance(part, dict) else {}


def number_of(values: dict[str, Any], name: str) -> float | None:
    """A finite number of an object; None: it has none."""
    value = values.get(name)
    return value if isinstance(value, float | int) and math.isfinite(value) else None


def _metrics(folder: Path) -> dict[str, Any]:
    return read_object(folder / "metrics.json")
