"""A page to look through results with: pictures to filter, sort and open large, in one file that needs no network."""

import base64
import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..files import write_atomically


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
    template = files(__package__).joinpath("gallery.html").read_text(encoding="utf-8")
    parts = {
        "policy": _policy(template),
        "title": escape(title),
        "summary": "".join(f"<p>{escape(line)}</p>" for line in summary),
        "data": _json([_plain(entry) for entry in entries]),
    }
    # In one pass, so that braces in a name stay what they are. What UTF-8 cannot hold becomes a reference.
    page = re.sub(r"{{(\w+)}}", lambda match: parts[match[1]], template)
    write_atomically(path, page.encode(errors="xmlcharrefreplace"))


def _policy(template: str) -> str:
    """The Content-Security-Policy: pictures, this style and this script, and nothing else."""
    hashes = {}
    for tag in ("style", "script"):
        text = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)[1]
        hashes[tag] = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        f"default-src 'none'; img-src 'self' file: data:; style-src 'sha256-{hashes['style']}'; "
        f"script-src 'sha256-{hashes['script']}'; base-uri 'none'; form-action 'none'"
    )


def _plain(entry: Entry) -> dict:
    """An entry as JSON values, its path as a relative URL of the bytes that the file has as its name."""
    iou = None if entry.iou is None or math.isnan(entry.iou) else float(entry.iou)
    return {**entry._asdict(), "picture": quote(os.fsencode(entry.picture)), "iou": iou}


def _json(value: object) -> str:
    """JSON in ASCII that no HTML parser takes for a tag or a comment."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
