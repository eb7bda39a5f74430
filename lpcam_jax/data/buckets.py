"""A few shapes for pictures of any size: XLA compiles each shape once.

Every picture is padded right and bottom to the smallest chosen shape that holds it. The models ignore the padding
exactly (`backbones/layers.py`), so the choice costs time, never numbers.
"""

from collections.abc import Iterable

import numpy as np

GRID = 32


def choose_buckets(sizes: Iterable[tuple[int, int]], *, limit: int) -> list[tuple[int, int]]:
    """The shapes to compile, at most `limit`, that hold all sizes with little padding.

    Sizes are rounded up to a multiple of 32; then, while there are too many, the two shapes whose union adds the fewest
    pixels to the work are replaced by their union; of several such pairs, the first in order of height and width. At
    last each shape in turn takes the height or the width that saves the most pixels, until none can save any.

    Args:
        sizes: (H, W) of every picture that will be computed, repeated as often as it occurs.
        limit: at least 1.

    Returns:
        Shapes (H, W), by area.
    """
    rounded = -(-np.array(list(sizes), np.int64).reshape(-1, 2) // GRID) * GRID
    shapes, counts = np.unique(rounded, axis=0, return_counts=True)
    if len(shapes) > limit:
        shapes = _moved(_united(shapes, counts, limit), shapes, counts)
    return sorted(map(tuple, shapes.tolist()), key=lambda shape: (shape[0] * shape[1], shape))


def _united(shapes: np.ndarray, counts: np.ndarray, limit: int) -> np.ndarray:
    """Different shapes (n, 2), which occur `counts` (n,) times, united two by two: at most `limit` are left.

    Every shape knows its cheapest partner, and looks again only when a union takes that partner away.
    """
    heights, widths = shapes.T.astype(np.float64)  # floats, for the infinite; whole numbers below 2^53 are exact
    areas, order = heights * widths, heights * 2**24 + widths
    costs, partners, counts = np.empty(len(shapes)), np.zeros(len(shapes), np.int64), counts.copy()

    def first_of_least(values):
        least = np.flatnonzero(values == values.min())
        return least[order[least].argmin()]

    def look(one):
        """Find the partner of a shape; the pixels that its union with each other shape adds."""
        unions = np.maximum(heights, heights[one]) * np.maximum(widths, widths[one])
        added = counts[one] * (unions - areas[one]) + counts * (unions - areas)
        added[one] = np.inf
        partners[one] = first_of_least(added)
        costs[one] = added[partners[one]]
        return added

    for one in range(len(shapes)):
        look(one)
    while np.isfinite(heights).sum() > limit:
        one = first_of_least(costs)
        pair = [one, partners[one]]
        height, width = heights[pair].max(), widths[pair].max()
        same = np.flatnonzero((heights == height) & (widths == width))  # the union may be one of them, or a third
        joined = np.union1d(pair, same)
        gone = joined[joined != one]
        looking = np.isin(partners, joined)
        counts[one] = counts[joined].sum()
        heights[gone] = costs[gone] = np.inf  # too far for any union
        heights[one], widths[one], areas[one], order[one] = height, width, height * width, height * 2**24 + width
        added = look(one)
        nearer = (added < costs) | ((added == costs) & (order[one] < order[partners]))
        costs[nearer], partners[nearer] = added[nearer], one
        for other in np.flatnonzero(looking & np.isfinite(heights)):
            look(other)
    left = np.isfinite(heights)
    return np.stack([heights[left], widths[left]], axis=1).astype(np.int64)


def _moved(chosen: np.ndarray, shapes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Chosen shapes (k, 2), one side of one at a time changed to save pixels, as long as that is possible.

    A picture costs the area of the smallest chosen shape that holds it, which need not be the union it went into.
    """
    chosen, heights, widths = chosen.copy(), np.unique(shapes[:, 0]), np.unique(shapes[:, 1])

    def cost(buckets):
        """(n, m): the area of each bucket for the shapes that it holds, infinite for the others."""
        holds = (shapes[:, :1] <= buckets[:, 0]) & (shapes[:, 1:] <= buckets[:, 1])
        return np.where(holds, buckets.prod(axis=1), np.inf)

    costs, number, settled = cost(chosen), 0, 0
    while settled < len(chosen):
        height, width = chosen[number]
        moves = np.array([(height, width), *((h, width) for h in heights), *((height, w) for w in widths)])
        elsewhere = np.delete(costs, number, axis=1).min(axis=1, initial=np.inf)
        work = counts @ np.minimum(elsewhere[:, None], cost(moves))
        best = work.argmin()  # the first of equals, which is to stay
        settled = settled + 1 if best == 0 else 1
        chosen[number] = moves[best]
        costs[:, number] = cost(chosen[[number]])[:, 0]
        number = (number + 1) % len(chosen)
    return chosen


def bucket_of(size: tuple[int, int], buckets: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest of the buckets (ascending by area) that holds a picture of this size."""
    return next(shape for shape in buckets if shape[0] >= size[0] and shape[1] >= size[1])
