"""The scores that a step of a chain ended with."""

import json
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
    metrics = _metrics(folder)
    found = []
    if (masks := score(folder, "masks")) is not None:
        found.append(Number("masks", masks))
    for method, report in metrics.get("scores", {}).items():
        if (seeds := score(folder, method)) is not None:
            found.append(Number(f"seeds of {title(method)}, at {report['best']['threshold']:.2f}", seeds))
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
    metrics = _metrics(folder)
    scores = metrics.get("scores", {})
    if of == "masks":
        return scores.get("miou")
    if of == "pseudo_masks":
        return metrics.get(of, {}).get("miou")
    best = best_seeds(folder, of)
    return best["miou"] if best else None


def best_seeds(folder: Path, method: str) -> dict[str, Any] | None:
    """The scores of a method's seeds at their best threshold, as in `SeedScoring.report`; None: there are none."""
    report = _metrics(folder).get("scores", {}).get(method)
    return report["best"] if isinstance(report, dict) and "best" in report else None


def with_saliency(folder: Path) -> bool:
    """Whether the pseudo masks beside heat maps were made with saliency maps."""
    return bool(_metrics(folder).get("protocol", {}).get("saliency"))


def _metrics(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
