"""Names of classes and pictures, shortened to fit, and how many there are."""

import unicodedata
from collections.abc import Callable


def counted(count: int, noun: str) -> str:
    """How many there are, as one says it: 1 picture, 2 pictures."""
    return f"{count} {noun}{'s' * (count != 1)}"


def written(count: int, noun: str) -> str:
    """The same at the beginning of a sentence: 1 picture is, 2 pictures are."""
    return f"{counted(count, noun)} {'is' if count == 1 else 'are'}"


def shorten(name: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a name that fits, with "..." if it is cut.

    Line breaks and other unprintable characters become "?", so that a name stays on one line; bytes that are not UTF-8
    become the escapes that a terminal shows, so that names stay different.
    """
    name = name.encode(errors="backslashreplace").decode()
    name = "".join(c if c.isprintable() else "?" for c in name)
    if fits(name):
        return name
    start = name[:100]
    while start and not fits(start + "..."):
        start = start[:-1]
    return start.rstrip() + "..."


def columns(text: str) -> int:
    """How many columns a text takes in a terminal: Chinese letters two, accents of their own none."""
    widths = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else widths.get(unicodedata.east_asian_width(c), 1) for c in text)
