"""Names that people chose, made to fit the space there is."""

from collections.abc import Callable


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
