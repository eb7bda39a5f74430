"""A few shapes for pictures of any size, because XLA compiles every shape anew.

Every picture is padded at the right and bottom to the smallest bucket that holds it. The models ignore the padding
exactly (`backbones/layers/`), so the choice of buckets affects speed, never results.
"""

from collections.abc import Iterable

import numpy as np

GRID = 32


def choose_buckets(sizes: Iterable[tuple[int, int]], *, limit: int) -> list[tuple[int, int]]:
    """The shapes to compile, at most `limit`, that hold all sizes with little padding.

    Sizes are rounded up to a multiple of 32. Then, while there are too many, the two shapes whose union adds the fewest
    pixels are replaced by their union; ties go to the first pair in order of height and width. Finally, each shape in
    turn takes the height or width that saves the most pixels, until none saves any.

    Args:
        sizes: (H, W) of every picture that will be computed, repeated as often as it occurs.
        limit: largest number of shapes, at least 1.

    Returns:
        Shapes (H, W), by ascending area.
    """
    rounded = -(-np.array(list(sizes), np.int64).reshape(-1, 2) // GRID) * GRID
    shapes, counts = np.unique(rounded, axis=0, return_counts=True)
    if len(shapes) > limit:
        shapes = _moved(_united(shapes, counts, limit), shapes, counts)
    return sorted(map(tuple, shapes.tolist()), key=lambda shape: (shape[0] * shape[1], shape))


def _united(shapes: np.ndarray, counts: np.ndarray, limit: int) -> np.ndarray:
    """Greedily unite distinct shapes (n, 2), which occur `counts` (n,) times, until at most `limit` remain.

    The cheapest partner of every shape is cached, and searched anew only when a union removes it.
    """
    heights, widths = shapes.T.astype(np.float64)  # float64 has infinity, and is exact for integers below 2^53
    areas, order = heights * widths, heights * 2**24 + widths
    costs, partners, counts = np.empty(len(shapes)), np.zeros(len(shapes), np.int64), counts.copy()

    def first_of_least(values):
        least = np.flatnonzero(values == values.min())
        return least[order[least].argmin()]

    def find_partner(index):
        """Update the cached partner of a shape; returns the pixels that its union with every other shape adds."""
        unions = np.maximum(heights, heights[index]) * np.maximum(widths, widths[index])
        added = counts[index] * (unions - areas[index]) + counts * (unions - areas)
        added[index] = np.inf
        partners[index] = first_of_least(added)
        costs[index] = added[partners[index]]
        return added

    for index in range(len(shapes)):
        find_partner(index)
    while np.isfinite(heights).sum() > limit:
        index = first_of_least(costs)
        pair = [index, partners[index]]
        height, width = heights[pair].max(), widths[pair].max()
        # The union may equal one of the two shapes, or a third.
        same = np.flatnonzero((heights == height) & (widths == width))
        joined = np.union1d(pair, same)
        removed = joined[joined != index]
        orphaned = np.isin(partners, joined)
        counts[index] = counts[joined].sum()
        heights[removed] = costs[removed] = np.inf  # never united again
        heights[index], widths[index] = height, width
        areas[index], order[index] = height * width, height * 2**24 + width
        added = find_partner(index)
        nearer = (added < costs) | ((added == costs) & (order[index] < order[partners]))
        costs[nearer], partners[nearer] = added[nearer], index
        for orphan in np.flatnonzero(orphaned & np.isfinite(heights)):
            find_partner(orphan)
    remaining = np.isfinite(heights)
    return np.stack([heights[remaining], widths[remaining]], axis=1).astype(np.int64)


def _moved(chosen: np.ndarray, shapes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Coordinate descent on the chosen shapes (k, 2): change one side of one shape at a time while that saves pixels.

    A picture costs the area of the smallest chosen shape that holds it, which need not be the union it went into.
    """
    chosen, heights, widths = chosen.copy(), np.unique(shapes[:, 0]), np.unique(shapes[:, 1])

    def cost(buckets):
        """(n, m): the area of each bucket for the shapes that fit into it, infinity for the others."""
        holds = (shapes[:, :1] <= buckets[:, 0]) & (shapes[:, 1:] <= buckets[:, 1])
        return np.where(holds, buckets.prod(axis=1), np.inf)

    costs, number, settled = cost(chosen), 0, 0
    while settled < len(chosen):
        height, width = chosen[number]
        moves = np.array([(height, width), *((h, width) for h in heights), *((height, w) for w in widths)])
        elsewhere = np.delete(costs, number, axis=1).min(axis=1, initial=np.inf)
        work = counts @ np.minimum(elsewhere[:, None], cost(moves))
        best = work.argmin()  # ties go to the first move, which is to stay
        settled = settled + 1 if best == 0 else 1
        chosen[number] = moves[best]
        costs[:, number] = cost(chosen[[number]])[:, 0]
        number = (number + 1) % len(chosen)
    return chosen


def bucket_of(size: tuple[int, int], buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest of the buckets (ascending by area) that holds a picture of this size."""
    return next(shape for shape in buckets if shape[0] >= size[0] and shape[1] >= size[1])
