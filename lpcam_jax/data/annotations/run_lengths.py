"""COCO's run-length codes of a region, both ways.

    {"size": [H, W], "counts": ...}

Pixels are read column by column; the counts are the lengths of runs that take turns outside and inside, beginning
outside. Uncompressed, `counts` is a list of them. Compressed, it is a text: of every count after the third, the
difference to the count two before it; each number as groups of five bits, the lowest first, a sixth bit saying that
more follow, the last one's highest bit being the sign; each group as the character with the code 48 + group.
"""

from typing import Any

import numpy as np


def encode(inside: np.ndarray, corner: tuple[int, int], size: tuple[int, int]) -> dict[str, Any]:
    """The compressed code of a region in a part of a picture.

    Args:
        inside: bool (h, w), with at least one True.
        corner: y and x of its first pixel in the picture.
        size: (H, W) of the picture.

    Returns:
        `size` and `counts` of the whole picture, plain JSON values.
    """
    x, y = np.nonzero(inside.T)
    places = (x + corner[1]) * size[0] + y + corner[0]
    first = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    starts = places[first]
    ends = places[np.append(first[1:], len(places)) - 1] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(edges, prepend=0).tolist()
    if rest := size[0] * size[1] - int(edges[-1]):
        counts.append(rest)
    return {"size": list(size), "counts": _text(counts)}


def decode(counts: Any, size: tuple[int, int]) -> np.ndarray:
    """The region of a code.

    Args:
        counts: a text or a list of numbers, as above.
        size: (H, W) of the picture.

    Returns:
        bool (H, W).

    Raises:
        ValueError: it is no code, or one of a picture of another size.
    """
    numbers = _numbers(counts) if isinstance(counts, str) else counts
    if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("its code is damaged")
    if sum(numbers) != size[0] * size[1]:
        raise ValueError("its code does not cover the picture")
    inside = np.arange(len(numbers)) % 2 == 1
    return np.repeat(inside, numbers).reshape(size[::-1]).T


def _text(counts: list[int]) -> str:
    text = bytearray()
    for position, count in enumerate(counts):
        number, more = count - (counts[position - 2] if position > 2 else 0), True
        while more:
            group = number & 31
            number >>= 5
            more = number != (-1 if group & 16 else 0)
            text.append(48 + group + 32 * more)
    return text.decode()


def _numbers(text: str) -> list[int]:
    counts: list[int] = []
    number = shift = 0
    for group in text.encode(errors="replace"):
        group -= 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("its code is damaged")
        number |= (group & 31) << shift
        shift += 5
        if not group & 32:
            number -= (1 << shift) if group & 16 else 0
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("its code ends too early")
    return counts
