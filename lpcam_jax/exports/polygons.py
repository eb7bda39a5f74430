"""The outline of every connected region of a mask, as one polygon along the edges of its pixels.

Polygon corners are corners of pixels, so no pixel's centre is ever on a line: filling the polygon reproduces the region
exactly. A hole is joined to the outline by a slit, a vertical line that is walked down and up again: it encloses
nothing, so that the hole is drawn even by programs that do not support holes, as most do not.
"""

from collections.abc import Iterator

import numpy as np

from ..seeds import IGNORE


def regions(mask: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """The connected regions of all classes.

    Args:
        mask: uint8 (H, W): 0 background, n + 1 class n, 255 ignored.

    Yields:
        (n + 1, polygon as in `outlines`), class by class. Background and ignored pixels are in none.
    """
    for value in np.unique(mask).tolist():
        if value not in (0, IGNORE):
            for polygon in outlines(mask == value):
                yield value, polygon


def outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Trace the regions of a mask.

    Args:
        mask: bool (H, W).

    Returns:
        For each region an int (k, 2) array: x in 0..W and y in 0..H of its corners, with the region on the right
        (clockwise, as y points down); holes are walked the other way. The first corner is the leftmost of the top row,
        and is not repeated at the end. Regions are in the order of their first corners, row by row. Pixels that share
        an edge belong to one region, pixels that only touch at a corner to two.
    """
    width = mask.shape[1] + 1  # of the grid of corners, on which a position is y * width + x
    polygons: list[list[int]] = []
    polygon_at: dict[int, list[int]] = {}
    for walk in sorted(_walks(mask), key=min):
        top = min(walk)
        if walk[0] == top:
            polygon = walk
            polygons.append(polygon)
        else:
            # Above the leftmost corner of a hole's top row is the region, up to a line that has already been joined.
            above = top - width
            while above not in polygon_at:
                above -= width
            polygon = polygon_at[above]
            here, start = polygon.index(above) + 1, walk.index(top)
            polygon[here:here] = [*walk[start:], *walk[:start], top, above]
        polygon_at.update(dict.fromkeys(walk, polygon))
    return [_corners(np.array(polygon), width) for polygon in polygons]


def area(polygon: np.ndarray) -> int:
    """Number of pixels in a polygon, int (k, 2), from `outlines`, by the shoelace formula: exact for integers."""
    x, y = polygon.T
    return int(x @ np.roll(y, -1) - y @ np.roll(x, -1)) // 2


def _walks(mask: np.ndarray) -> list[list[int]]:
    """Every closed boundary, corner by corner, with the region on its right.

    Only outlines begin with the leftmost corner of their top row: holes are entered from below.
    """
    inside = np.pad(mask, 1)
    here, above, left, diagonal = inside[1:, 1:], inside[:-1, 1:], inside[1:, :-1], inside[:-1, :-1]
    # Bit d: an edge leaves the corner in direction d (right, down, left, up).
    edges = [here & ~above, left & ~here, diagonal & ~left, above & ~diagonal]
    leaving = sum(edge << d for d, edge in enumerate(edges)).astype(np.uint8).tobytes()
    steps = (1, here.shape[1], -1, -here.shape[1])
    # Where two regions touch at a corner, turning right stays with the current one.
    turns = [[next((e % 4 for e in (d + 1, d, d - 1) if bits >> e % 4 & 1), d) for bits in range(16)] for d in range(4)]
    walks, walked = [], set()
    for first in np.flatnonzero(edges[0]).tolist():
        if first in walked:
            continue
        position, direction, walk = first, 0, []
        while not (walk and position == first and direction == 0):
            walk.append(position)
            if direction == 0:
                walked.add(position)
            position += steps[direction]
            direction = turns[direction][leaving[position]]
        walks.append(walk)
    return walks


def _corners(walk: np.ndarray, width: int) -> np.ndarray:
    """The positions where the walk turns, int (k, 2), x and y."""
    points = np.stack([walk % width, walk // width], axis=1)
    leaving = np.sign(np.roll(points, -1, axis=0) - points)
    return points[(leaving != np.roll(leaving, 1, axis=0)).any(axis=1)]
