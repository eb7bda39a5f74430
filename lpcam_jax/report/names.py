"""Names of classes and pictures, shortened to fit."""

from collections.abc import Callable


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
