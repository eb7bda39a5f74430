"""Which pictures the pages show: overlays and gallery of a hundred thousand would be 50 GB that nobody looks at."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

Pages = Literal["none", "sample", "all"]

SAMPLE = 2000


def shown_pictures(ids: Sequence[str], pages: Pages) -> set[str]:
    """The ids of the pictures that have overlays and a place in the gallery.

    Args:
        ids: of all pictures.
        pages: "all"; "none"; or "sample": at most 2,000, whose choice hardly changes when pictures are added.

    Returns:
        Some of the ids.
    """
    if pages == "none":
        return set()
    if pages == "all" or len(ids) <= SAMPLE:
        return set(ids)
    return set(sorted(ids, key=lambda name: hashlib.blake2b(name.encode(errors="surrogateescape")).digest())[:SAMPLE])


def look_at(directory: str) -> str:
    """What to say of a folder of results that has a page; nothing of one without."""
    return "look at index.html, " if Path(directory, "index.html").exists() else ""
