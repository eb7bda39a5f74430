"""A page to look through results with: pictures to filter, sort and open large, their maps and masks as layers."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from ..machine.files import write_atomically
from .layers import COLORS
from .overlays import heat_ramp
from .page import url, write_page

FOLDER = "gallery"


class Pane(NamedTuple):
    """One of the things that are shown of every picture.

    Args:
        key: folder of its files, gallery/KEY/ID.
        title: for people.
        kind: map: `layers.map_layer`; seed: `layers.seed_layer`, which the page cuts at a threshold; mask:
            `layers.mask_layer`.
        method: whose threshold cuts it and whose IoU is its own; "" where neither is known.
    """

    key: str
    title: str
    kind: Literal["map", "seed", "mask"]
    method: str = ""


class Look(NamedTuple):
    """What the small pictures show, side by side.

    Args:
        title: for people.
        panes: keys.
    """

    title: str
    panes: tuple[str, ...]


class Entry(NamedTuple):
    """A picture of the gallery.

    Args:
        id: its name, which no other has.
        size: (width, height), in any unit.
        classes: names to filter by; those with maps first, in the order of the maps.
        colors: indices of `layers.COLORS`, one a class.
        maps: how many of the classes have maps.
        iou: for each method, float (t,), the picture's mIoU in [0, 1] at the thresholds k / t; t is 1 for masks.
        disagreement: of CAM and LPCAM, in [0, 1]; NaN where it is not known.
        missing: keys of the panes it has no file for.
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
    """What is true of all pictures.

    Args:
        title: the heading.
        panes: what there is of a picture, beside its photograph.
        looks: choices for the small pictures; the first is the default.
        thresholds: for each method of a seed, where it is cut at first.
        rank: the method whose IoU sorts; against: the one it is compared with, "" where there is none.
        overlays: folder with a picture of everything, ID.png.
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


def write_layer(directory: Path, key: str, name: str, content: bytes) -> None:
    """Write the file of a picture that a pane shows; `key` "photo" is the photograph.

    Raises:
        UserError: it cannot be written.
    """
    write_atomically(layer_file(directory, key, name), content)


def layer_file(directory: Path, key: str, name: str) -> Path:
    """Where the file of a picture is, or would be."""
    return directory / FOLDER / key / f"{name}.{'jpg' if key == 'photo' else 'png'}"


def write_gallery(path: Path, gallery: Gallery, entries: Sequence[Entry]) -> None:
    """Write the page.

    Args:
        path: the HTML file; the layers are in gallery/ beside it.
        gallery: what is true of all pictures.
        entries: the pictures.

    Raises:
        UserError: the file cannot be written.
    """
    data = {
        "panes": [one._asdict() for one in gallery.panes],
        "looks": [one._asdict() for one in gallery.looks],
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
    """An entry as JSON values; what is empty is left out, as there may be many thousands of them."""
    plain = {
        **entry._asdict(),
        "path": "" if url(entry.id) == entry.id else url(entry.id),
        "iou": {method: _percentages(curve) for method, curve in entry.iou.items()},
        "disagreement": None if np.isnan(entry.disagreement) else round(entry.disagreement, 4),
    }
    return {key: value for key, value in plain.items() if value not in ("", (), {}, None, 0)}


def _percentages(curve: np.ndarray) -> str:
    """IoUs as one byte each, 250 steps from 0 to 1, in base 64: a gallery of ten thousand pictures holds millions."""
    return base64.b64encode(np.rint(250 * np.asarray(curve)).astype(np.uint8).tobytes()).decode()
