"""A page for browsing results: pictures to filter, sort and enlarge, with maps and masks as layers."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..machine.files import write_atomically
from .layers import COLORS
from .overlays import heat_ramp
from .page import url, write_page

FOLDER = "gallery"


class Pane(NamedTuple):
    """A kind of layer that every picture has.

    Attributes:
        key: folder of its files, gallery/KEY/ID.
        title: for people.
        kind: map: `layers.map_layer`; seed: `layers.seed_layer`, which the page cuts at a threshold; mask:
            `layers.mask_layer`.
        method: the method whose threshold and IoU belong to it; "" if there is none.
    """

    key: str
    title: str
    kind: Literal["map", "seed", "mask"]
    method: str = ""


class Look(NamedTuple):
    """The layers that the thumbnails show, side by side.

    Attributes:
        title: for people.
        panes: keys.
    """

    title: str
    panes: tuple[str, ...]


class Entry(NamedTuple):
    """A picture of the gallery.

    Attributes:
        id: its unique name.
        size: (width, height), in any unit.
        classes: names to filter by; those with maps first, in the order of the maps.
        colors: indices of `layers.COLORS`, one per class.
        maps: how many of the classes have maps.
        iou: for each method, float (t,), the picture's mIoU in [0, 1] at the thresholds k / t; t is 1 for masks.
        disagreement: of CAM and LPCAM, in [0, 1]; NaN if unknown.
        missing: keys of the panes that it has no file for.
        note: anything else worth reading.
    """

    id: str
    size: tuple[int, int]
    classes: tuple[str, ...] = ()
    colors: tuple[int, ...] = ()
    maps: int = 0
    iou: Mapping[str, np.ndarray] = {}
    disagreement: float = float("nan")
    missing: tuple[str, ...] = ()
    note: str = ""


class Gallery(NamedTuple):
    """The settings of the page.

    Attributes:
        title: the heading.
        panes: the layers of each picture, in addition to its photograph.
        looks: choices for the thumbnails; the first is the default.
        thresholds: for each method with a seed, the initial threshold.
        rank: the method by whose IoU pictures are sorted.
        against: the method that it is compared with; "" if there is none.
        overlays: folder of the labelled panels, ID.jpg.
        summary: lines of text.
        links: (text, file beside the page).
    """

    title: str
    panes: Sequence[Pane]
    looks: Sequence[Look]
    thresholds: Mapping[str, float] = {}
    rank: str = ""
    against: str = ""
    overlays: str = "overlays"
    summary: Sequence[str] = ()
    links: Sequence[tuple[str, str]] = ()


def write_layers(directory: Path, name: str, layers: Iterable[tuple[str, bytes]], panes: Iterable[str]) -> None:
    """Write the files of a picture's layers, and remove those of an earlier time that it has no more.

    Args:
        directory: folder of the page.
        name: id of the picture.
        layers: (key of the pane, "photo" for the photograph, and the content of the file).
        panes: keys of all panes of the page.

    Raises:
        UserError: they cannot be written.
    """
    gone = set(panes)
    for key, content in layers:
        write_atomically(layer_file(directory, key, name), content, durably=False)
        gone.discard(key)
    for key in gone:
        layer_file(directory, key, name).unlink(missing_ok=True)


def layer_file(directory: Path, key: str, name: str) -> Path:
    """The path of a picture's layer, whether or not it exists."""
    return directory / FOLDER / key / f"{name}.{'jpg' if key == 'photo' else 'png'}"


def write_gallery(path: Path, gallery: Gallery, entries: Sequence[Entry]) -> None:
    """Write the page.

    Args:
        path: the HTML file; the layers are in gallery/ beside it.
        gallery: the settings of the page.
        entries: the pictures.

    Raises:
        UserError: the file cannot be written.
    """
    data = {
        "panes": [pane._asdict() for pane in gallery.panes],
        "looks": [look._asdict() for look in gallery.looks],
        "thresholds": {method: round(float(value), 2) for method, value in gallery.thresholds.items()},
        "rank": gallery.rank,
        "against": gallery.against,
        "overlays": gallery.overlays,
        "folder": FOLDER,
        "links": [[text, url(file)] for text, file in gallery.links],
        "colors": COLORS,
        "heat": heat_ramp(),
        "entries": [_plain(entry) for entry in entries],
    }
    write_page(path, "gallery.html", title=gallery.title, summary=gallery.summary, data=data)


def _plain(entry: Entry) -> dict[str, Any]:
    """An entry as JSON values; empty ones are left out, because there may be many thousands of entries."""
    plain = {
        **entry._asdict(),
        "path": "" if url(entry.id) == entry.id else url(entry.id),
        "iou": {method: _percentages(curve) for method, curve in entry.iou.items()},
        "disagreement": None if np.isnan(entry.disagreement) else round(entry.disagreement, 4),
    }
    return {key: value for key, value in plain.items() if value not in ("", (), {}, None, 0)}


def _percentages(curve: np.ndarray) -> str:
    """IoUs as one byte each, 250 steps from 0 to 1, in base64: a gallery of ten thousand pictures holds millions."""
    return base64.b64encode(np.rint(250 * np.asarray(curve)).astype(np.uint8).tobytes()).decode()
