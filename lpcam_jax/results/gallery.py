"""The gallery of a folder of heat maps: layers over each photograph, and the page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..config.registry import title
from ..data.pictures import picture_size
from ..data.records import Record
from ..report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery
from ..report.layers import map_layer, mask_layer, photo_layer, picture_colors, seed_layer
from ..report.names import counted
from .counts import FIXED, classes_in
from .folder import sample_line, skipped_line
from .map_folder import MapFolder
from .scoring import PictureScore


def shown_methods(methods: Sequence[str]) -> list[str]:
    """The methods shown in the gallery: all but LPCAM-F, unless seeds are cut from it, the last; overlays have all."""
    return [method for method in methods if method != "lpcam_f" or method == methods[-1]]


def _shown_classes(mapped: np.ndarray, truth: np.ndarray) -> list[int]:
    """The mapped classes, then those only in the truth."""
    return [*map(int, mapped), *(int(n) for n in truth if n not in mapped)]


def gallery_layers(
    record: Record, classes: np.ndarray, maps: Mapping[str, np.ndarray], refined: np.ndarray | None
) -> Iterator[tuple[str, bytes]]:
    """Encode the photograph and the gallery's layers over it.

    Args:
        record: the picture.
        classes: int (n,), the classes of its maps.
        maps: float (n, H, W), in [0, 1], by method.
        refined: uint8 (H, W), its pseudo mask; None: there is none.

    Yields:
        (key of a pane, an encoded picture).
    """
    truth = classes_in(record.mask)
    legend = _shown_classes(classes, truth)
    colors = picture_colors(legend)
    yield "photo", photo_layer(record.image)
    if len(classes):
        for method in shown_methods(list(maps)):
            yield method, map_layer(maps[method])
            yield f"seed_{method}", seed_layer(maps[method], colors[: len(classes)])
    for key, mask in (("refined", refined), ("truth", record.mask)):
        if mask is not None:
            yield key, mask_layer(mask, legend, colors)


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
        directory: the folder of heat maps; its layers are already written.
        maps: its maps.
        class_names: c names.
        metrics: the contents of metrics.json.
        of_pictures: id -> score of each mapped picture.
        has_masks: whether there are true masks.
        refined: whether there are pseudo masks.
        links: links to further pages, each (text, file beside the page).

    Raises:
        UserError: the page cannot be written, or the maps of a picture cannot be read.
    """
    predicted = metrics["protocol"]["classes"] == "predicted"
    entries = [
        _entry(directory, maps, class_names, name, score, predicted=predicted) for name, score in of_pictures.items()
    ]
    gallery = _gallery(metrics, shown_methods(maps.methods), has_masks, refined)._replace(links=links)
    gallery.summary.extend(sample_line(len(entries), metrics["pictures"]))
    write_gallery(directory / "index.html", gallery, entries)


def _entry(
    directory: Path, maps: MapFolder, class_names: Sequence[str], name: str, score: PictureScore, *, predicted: bool
) -> Entry:
    """The picture's entry in the gallery; probabilities of predicted classes are noted."""
    methods = shown_methods(maps.methods)
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
        {method: score.miou[method] for method in methods if method in score.miou},
        score.disagreement,
        tuple(pane.key for pane in _panes(methods) if not layer_file(directory, pane.key, name).exists()),
        note,
    )


def _panes(methods: Sequence[str]) -> list[Pane]:
    """All panes that the gallery has for these methods."""
    return [
        *(Pane(method, title(method), "map", method) for method in methods),
        Pane("truth", "ground truth", "mask"),
        *(Pane(f"seed_{method}", f"seed of {title(method)}", "seed", method) for method in methods),
        Pane("refined", "pseudo mask", "mask"),
    ]


def panes_of(methods: Sequence[str]) -> list[str]:
    """Keys of the panes of a page of these methods."""
    return [pane.key for pane in _panes(shown_methods(methods))]


def _looks(methods: Sequence[str]) -> list[Look]:
    """Combinations of panes to show side by side; pseudo masks are refined from the last method."""
    seed = f"seed_{methods[-1]}"
    return [
        Look("heat maps", tuple(methods)),
        Look("seeds", tuple(f"seed_{method}" for method in methods)),
        Look("seed and pseudo mask", (seed, "refined")),
        Look("pseudo mask and ground truth", ("refined", "truth")),
        Look("seed and ground truth", (seed, "truth")),
    ]


def _gallery(metrics: dict[str, Any], methods: Sequence[str], has_masks: bool, is_refined: bool) -> Gallery:
    """The gallery; each method's threshold is initially its own best one, if known."""
    scores = metrics.get("scores")
    absent = {key for key, exists in (("truth", has_masks), ("refined", is_refined)) if not exists}
    thresholds = {method: scores[method]["best"]["threshold"] if scores else FIXED for method in methods}
    if not scores:
        thresholds[methods[-1]] = _cut_at(metrics)
    *others, last = map(title, methods)
    return Gallery(
        " and ".join([", ".join(others), last] if others else [last]),
        [pane for pane in _panes(methods) if pane.key not in absent],
        [look for look in _looks(methods) if not absent & set(look.panes)],
        thresholds,
        rank=methods[-1],
        against=methods[0] if others else "",
        summary=list(_summary(metrics, methods)),
    )


def _summary(metrics: dict[str, Any], methods: Sequence[str]) -> Iterator[str]:
    """Lines of text for the top of the page."""
    if "scores" in metrics:
        best = {method: metrics["scores"][method]["best"] for method in methods}
        results = (f"{title(name)} {100 * at['miou']:.1f} at {at['threshold']:.2f}" for name, at in best.items())
        pictures = counted(metrics["scored"], "picture")
        yield f"mIoU of the seeds of {pictures}, at the best threshold: {', '.join(results)}"
        yield from pseudo_mask_line(metrics)
    else:
        cut_at = f"{title(methods[-1])}'s at {_cut_at(metrics):g}, as in seeds/"
        yield f"There are no masks to score against: thresholds are yours to choose, and start at {FIXED}, {cut_at}."
    yield from skipped_line(metrics["skipped"])


def _cut_at(metrics: dict[str, Any]) -> float:
    """The threshold of the seeds that are written."""
    return metrics["protocol"].get("background") or FIXED


def pseudo_mask_line(metrics: dict[str, Any]) -> Iterator[str]:
    """A line with the mIoU of the pseudo masks; nothing if it is unknown."""
    if "pseudo_masks" in metrics:
        protocol = metrics["protocol"]
        cut_at = "" if protocol["saliency"] else f" at {protocol['background']:g}"
        how = "CRF and saliency" if protocol["saliency"] else protocol["refine"].upper()
        miou = 100 * metrics["pseudo_masks"]["miou"]
        yield f"mIoU of the pseudo masks, {title(list(metrics['scores'])[-1])}{cut_at} and {how}: {miou:.1f}"
