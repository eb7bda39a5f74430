"""A page to look through results with: pictures to filter, sort and open large."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .page import url, write_page


class Entry(NamedTuple):
    """A picture of the gallery.

    Args:
        id: its name, which no other has.
        picture: path of the file to show, relative to the page, with forward slashes.
        classes: names to filter by.
        iou: mean IoU in [0, 1]; None or NaN where there is no truth.
        note: anything else worth reading.
    """

    id: str
    picture: str
    classes: tuple[str, ...]
    iou: float | None
    note: str = ""


def write_gallery(path: Path, entries: Sequence[Entry], *, title: str, summary: Sequence[str] = ()) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        entries: its pictures.
        title: the heading.
        summary: lines of text below it.

    Raises:
        UserError: the file cannot be written.
    """
    write_page(path, "gallery.html", title=title, summary=summary, data=[_plain(entry) for entry in entries])


def _plain(entry: Entry) -> dict:
    """An entry as JSON values."""
    iou = None if entry.iou is None or math.isnan(entry.iou) else float(entry.iou)
    return {**entry._asdict(), "picture": url(entry.picture), "iou": iou}
