"""Names as people read them: those of methods, and those that people chose, made to fit the space there is."""

from collections.abc import Callable

_TITLES = {"cam": "CAM", "lpcam_f": "LPCAM-F", "lpcam": "LPCAM", "taught": "LPCAM-T", "amn": "AMN"}


def title(method: str) -> str:
    """The method's name in the paper; a method of somebody else keeps the name it has."""
    return _TITLES.get(method, method)


def shorten(name: str, fits: Callable[[str], bool]) -> str:
    """Return the longest beginning of a name that fits, ending in "..." when something was cut.

    Line breaks and other characters that cannot be drawn become "?": a name stays on its line.
    """
    name = "".join(c if c.isprintable() else "?" for c in name)
    if fits(name):
        return name
    kept = name[:100]
    while kept and not fits(kept + "..."):
        kept = kept[:-1]
    return kept.rstrip() + "..."
