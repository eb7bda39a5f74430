"""Affinity of pixels: two are alike when no edge lies on the path between them.

    a(i, j) = 1 - max over the cells x of the path from i to j  edge(x)

Each pixel i of the grid is paired with those j = i + d that are below it, or right of it, and nearer than the radius.
The pixels that have all their partners inside an (h, w) grid are its sources: rows 0 .. h - r - 1 and columns
r .. w - r - 1, where r, the reach of the paths, is the radius - 1. What is known of the pairs of one direction d is a
plane of sources, (*b, h - r, w - 2r): windows of the grid, shifted, and nothing is gathered. There are many directions,
so `over_paths` makes one plane after the other, and a loss needs to hold none.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class Path(NamedTuple):
    """The way from a pixel to a partner.

    direction: (rows, columns) from the source to its partner.
    cells: (rows, columns) from the source of all cells that count: those of the box between the two that are nearer
        than one cell to the line, both ends included, the partner first.
    """

    direction: tuple[int, int]
    cells: tuple[tuple[int, int], ...]


@cache
def search_paths(radius: int) -> tuple[Path, ...]:
    """The paths from a pixel to all partners nearer than the radius, one for each pair.

    Args:
        radius: in pixels of the grid, at least 2.

    Returns:
        The paths by ascending length: 34 at radius 5, 152 at radius 10.

    Source: IRN, misc/indexing.py; equal in number and order.
    """
    around = range(-radius + 1, radius)
    directions = [(0, x) for x in range(1, radius)]
    directions += [(y, x) for y in range(1, radius) for x in around if y * y + x * x < radius * radius]
    return tuple(sorted((Path(d, _cells(*d)) for d in directions), key=lambda path: len(path.cells)))


def reach(paths: Sequence[Path]) -> int:
    """Rows and columns that the paths extend: the radius - 1.

    Args:
        paths: of `search_paths`.

    Returns:
        r.
    """
    return max(path.direction[1] for path in paths)


def window(grid: jax.Array, offset: tuple[int, int] | jax.Array, r: int) -> jax.Array:
    """What is at x = i + offset, for all sources i.

    Args:
        grid: (*b, h, w).
        offset: (2,), (rows, columns), 0 .. r and -r .. r.
        r: the reach of the paths.

    Returns:
        (*b, h - r, w - 2r).
    """
    *batch, h, w = grid.shape
    return lax.dynamic_slice(grid, _corner(grid, offset, r), (*batch, h - r, w - 2 * r))


def over_paths(measure: Callable[[jax.Array, Callable[[jax.Array], jax.Array]], Any], paths: tuple[Path, ...]) -> Any:
    """What is measured along every path, one path after the other.

    Nothing that is made on the way is held, also not for the gradient, for which it is made again.

    Args:
        measure: called with the direction of a path, int (2,), and with a function that gives the affinities along it,
            float (*b, h - r, w - 2r), of edges, float (*b, h, w). The gradient of the affinities goes to the strongest
            cell of the path, to the first if there are several.
        paths: p of them, of `search_paths`.

    Returns:
        The arrays that `measure` gives, with p in front.
    """
    r = reach(paths)
    cells = jnp.array([cell for path in paths for cell in path.cells])
    ends = jnp.cumsum(jnp.array([len(path.cells) for path in paths]))
    spans = jnp.stack([jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]]), ends], axis=-1)

    @jax.checkpoint
    def follow(span):
        return measure(_at(cells, span[0]), lambda edges: 1 - _strongest(edges, cells, span, r))

    return lax.map(follow, spans)


def affinity(edges: jax.Array, paths: tuple[Path, ...]) -> jax.Array:
    """One less the strongest edge on the way, for all sources and directions.

    Args:
        edges: float (*b, h, w), probabilities of an edge in [0, 1].
        paths: p of them, of `search_paths`.

    Returns:
        float (p, *b, h - r, w - 2r), in [0, 1].

    Source: IRN, net/resnet50_irn.py (there a gather of all cells of all paths).
    """
    return over_paths(lambda _, along: along(edges), paths)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _strongest(edges, cells, span, r):
    """The largest edge among the cells of the span, for all sources."""

    def visit(index, strongest):
        return jnp.maximum(strongest, window(edges, _at(cells, index), r))

    return lax.fori_loop(span[0] + 1, span[1], visit, window(edges, _at(cells, span[0]), r))


def _strongest_forward(edges, cells, span, r):
    strongest = _strongest(edges, cells, span, r)
    return strongest, (edges, cells, span, strongest)


def _strongest_backward(r, inputs, cotangent):
    edges, cells, span, strongest = inputs

    def visit(index, state):
        total, left = state
        cell = _at(cells, index)
        here = jnp.where(window(edges, cell, r) == strongest, left, 0)
        return lax.dynamic_update_slice(total, window(total, cell, r) + here, _corner(total, cell, r)), left - here

    total, _ = lax.fori_loop(span[0], span[1], visit, (jnp.zeros_like(edges), cotangent))
    return total, None, None


_strongest.defvjp(_strongest_forward, _strongest_backward)


def _cells(row: int, column: int) -> tuple[tuple[int, int], ...]:
    """The cells of the path to (row, column), the farthest first."""
    box = [(y, x) for y in range(row + 1) for x in range(min(0, column), max(0, column) + 1)]
    near = [(y, x) for y, x in box if (row * x - column * y) ** 2 < row * row + column * column]
    return tuple(sorted(near, key=lambda cell: -abs(cell[0]) - abs(cell[1])))


def _at(cells, index):
    # Without the barrier and under jax.vmap, XLA (of jax 0.10.2) fails to compile the look-up and the window as one.
    return lax.optimization_barrier(cells[index])


def _corner(grid, offset, r):
    """Where the window of all i + offset begins."""
    return (*[0] * (grid.ndim - 2), offset[0], r + offset[1])
