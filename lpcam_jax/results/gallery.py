"""The gallery of a folder of heat maps: what lies over each photograph, and what the page says of all of them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.registry import title
from ..data.pictures import picture_size
from ..data.records import Record
from ..report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery
from ..report.layers import map_layer, mask_layer, photo_layer, picture_colors, seed_layer
from .folder import skipped_line
from .predictions import MapFolder
from .scoring import FIXED, PictureScore, classes_in


def shown_methods(methods: Sequence[str]) -> list[str]:
    """The methods that the gallery shows: LPCAM-F is in the overlays only."""
    return [method for method in methods if method != "lpcam_f"]


def _shown_classes(mapped: np.ndarray, truth: np.ndarray) -> list[int]:
    """The classes that have maps, and then those that only the truth has."""
    return [*map(int, mapped), *(int(n) for n in truth if n not in mapped)]


def gallery_layers(
    record: Record, classes: np.ndarray, maps: Mapping[str, np.ndarray], refined: np.ndarray | None
) -> Iterator[tuple[str, bytes]]:
    """What the gallery lays over a photograph, and that.

    Args:
        record: the picture.
        classes: int (n,), of its maps.
        maps: by method float (n, H, W), in [0, 1].
        refined: uint8 (H, W), its pseudo mask; None: there is none.

    Yields:
        (key of a pane, an encoded picture).
    """
    truth = classes_in(record.mask)
    shown = _shown_classes(classes, truth)
    colors = picture_colors(shown)
    yield "photo", photo_layer(record.image)
    if len(classes):
        for method in shown_methods(list(maps)):
            yield method, map_layer(maps[method])
            yield f"seed_{method}", seed_layer(maps[method], colors[: len(classes)])
    for key, mask in (("refined", refined), ("truth", record.mask)):
        if mask is not None:
            yield key, mask_layer(mask, shown, colors)


def write_heatmap_gallery(
    directory: Path,
    maps: MapFolder,
    class_names: Sequence[str],
    metrics: dict[str, Any],
    of_pictures: Mapping[str, PictureScore],
    *,
    has_masks: bool,
    refined: bool,
    links: Sequence[tuple[str, str]],
) -> None:
    """Write index.html.

    Args:
        directory: the folder of heat maps, whose layers are there.
        maps: its maps.
        class_names: c names.
        metrics: what goes to metrics.json.
        of_pictures: by id, the score of each that is mapped.
        has_masks: whether there are true masks.
        refined: whether there are pseudo masks.
        links: (text, file beside the page).

    Raises:
        UserError: the page cannot be written, or the maps of a picture cannot be read.
    """
    predicted = metrics["protocol"]["classes"] == "predicted"
    entries = [
        _entry(directory, maps, class_names, name, one, predicted=predicted) for name, one in of_pictures.items()
    ]
    gallery = _gallery(metrics, shown_methods(maps.methods), has_masks, refined)._replace(links=links)
    write_gallery(directory / "index.html", gallery, entries)


def _entry(
    directory: Path, maps: MapFolder, class_names: Sequence[str], name: str, score: PictureScore, *, predicted: bool
) -> Entry:
    """The picture in the gallery; where its classes are predicted their probabilities are noted."""
    shown = shown_methods(maps.methods)
    classes = _shown_classes(score.classes, score.truth)
    note = ""
    if predicted:
        probabilities = maps.read_one(name, "probabilities")
        note = ", ".join(f"{class_names[n]} {probabilities[n]:.0%}" for n in score.classes)
    return Entry(
        name,
        picture_size(layer_file(directory, "photo", name))[::-1],
        tuple(class_names[n] for n in classes),
        tuple(picture_colors(classes)),
        len(score.classes),
        {method: score.miou[method] for method in shown if method in score.miou},
        score.disagreement,
        tuple(one.key for one in _panes(shown) if not layer_file(directory, one.key, name).exists()),
        note,
    )


def _panes(shown: Sequence[str]) -> list[Pane]:
    """What the gallery shows of a picture beside the photograph, of these methods."""
    return [
        *(Pane(method, title(method), "map", method) for method in shown),
        Pane("truth", "ground truth", "mask"),
        *(Pane(f"seed_{method}", f"seed of {title(method)}", "seed", method) for method in shown),
        Pane("refined", "pseudo mask", "mask"),
    ]


def _looks(shown: Sequence[str]) -> list[Look]:
    """Which of them side by side; the last method is the one that is refined."""
    seed = f"seed_{shown[-1]}"
    return [
        Look("heat maps", tuple(shown)),
        Look("seeds", tuple(f"seed_{method}" for method in shown)),
        Look("seed and pseudo mask", (seed, "refined")),
        Look("pseudo mask and ground truth", ("refined", "truth")),
        Look("seed and ground truth", (seed, "truth")),
    ]


def _gallery(metrics: dict[str, Any], shown: Sequence[str], has_masks: bool, is_refined: bool) -> Gallery:
    """Each method's seeds are cut at its own best threshold at first, where that is known."""
    scores = metrics.get("scores")
    absent = {key for key, is_there in (("truth", has_masks), ("refined", is_refined)) if not is_there}
    thresholds = {method: scores[method]["best"]["threshold"] if scores else FIXED for method in shown}
    *others, last = map(title, shown)
    return Gallery(
        " and ".join([", ".join(others), last] if others else [last]),
        [one for one in _panes(shown) if one.key not in absent],
        [one for one in _looks(shown) if not absent & set(one.panes)],
        thresholds,
        rank=shown[-1],
        against=shown[0] if others else "",
        summary=list(_summary(metrics, shown)),
    )


def _summary(metrics: dict[str, Any], shown: Sequence[str]) -> Iterator[str]:
    """Lines of text for the top of the page."""
    if "scores" in metrics:
        best = {method: metrics["scores"][method]["best"] for method in shown}
        found = (f"{title(method)} {100 * one['miou']:.1f} at {one['threshold']:.2f}" for method, one in best.items())
        yield f"mIoU of the seeds of {metrics['scored']} pictures, at the best threshold: {', '.join(found)}"
        yield from pseudo_mask_line(metrics)
    else:
        yield "There are no masks to score against: thresholds start at 0.3 and are yours to choose."
    yield from skipped_line(metrics["skipped"])


def pseudo_mask_line(metrics: dict[str, Any]) -> Iterator[str]:
    """What the refinement made of the seeds; no line where it is not known."""
    if "pseudo_masks" in metrics:
        protocol = metrics["protocol"]
        cut_at = "" if protocol["saliency"] else f" at {protocol['background']:g}"
        how = "CRF and saliency" if protocol["saliency"] else "CRF"
        miou = 100 * metrics["pseudo_masks"]["miou"]
        yield f"mIoU of the pseudo masks, {title(list(metrics['scores'])[-1])}{cut_at} and {how}: {miou:.1f}"
