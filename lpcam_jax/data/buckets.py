"""A few shapes for pictures of any size: XLA compiles each shape once.

Every picture is padded right and bottom to the smallest chosen shape that holds it. The models ignore the padding
exactly (`models/layers.py`), so the choice costs time, never numbers.
"""

from collections.abc import Iterable

GRID = 32


def choose_buckets(sizes: Iterable[tuple[int, int]], *, limit: int) -> list[tuple[int, int]]:
    """The shapes to compile, at most `limit`, that hold all sizes with little padding.

    Sizes are rounded up to a multiple of 32; then, while there are too many, the two shapes whose union adds the fewest
    pixels to the work are replaced by their union.

    Args:
        sizes: (H, W) of every picture that will be computed, repeated as often as it occurs.
        limit: at least 1.

    Returns:
        Shapes (H, W), by area.
    """
    counts: dict[tuple[int, int], int] = {}
    for height, width in sizes:
        shape = (-(-height // GRID) * GRID, -(-width // GRID) * GRID)
        counts[shape] = counts.get(shape, 0) + 1

    def union(a, b):
        return max(a[0], b[0]), max(a[1], b[1])

    def added(a, b):
        area = union(a, b)[0] * union(a, b)[1]
        return counts[a] * (area - a[0] * a[1]) + counts[b] * (area - b[0] * b[1])

    while len(counts) > limit:
        shapes = sorted(counts)
        a, b = min(((a, b) for i, a in enumerate(shapes) for b in shapes[i + 1 :]), key=lambda pair: added(*pair))
        together = counts.pop(a) + counts.pop(b)
        counts[union(a, b)] = counts.get(union(a, b), 0) + together
    return sorted(counts, key=lambda shape: (shape[0] * shape[1], shape))


def bucket_of(size: tuple[int, int], buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest of the buckets (ascending by area) that holds a picture of this size."""
    return next(shape for shape in buckets if shape[0] >= size[0] and shape[1] >= size[1])
