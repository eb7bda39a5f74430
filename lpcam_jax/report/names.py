"""Names for display: titles of methods, and names of classes and pictures, shortened to fit."""

from collections.abc import Callable

_TITLES = {"cam": "CAM", "lpcam_f": "LPCAM-F", "lpcam": "LPCAM", "taught": "LPCAM-T", "amn": "AMN"}


def title(method: str) -> str:
    """The method's name in the paper; other methods keep their own."""
    return _TITLES.get(method, method)


def shorten(name: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of a name that fits, with "..." if it is cut.

    Line breaks and other unprintable characters become "?", so that a name stays on one line.
    """
    name = "".join(c if c.isprintable() else "?" for c in name)
    if fits(name):
        return name
    start = name[:100]
    while start and not fits(start + "..."):
        start = start[:-1]
    return start.rstrip() + "..."
