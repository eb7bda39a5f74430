"""Affinity of pixels: two are similar if no edge lies on the path between them.

    a(i, j) = 1 - max over the cells x of the path from i to j  edge(x)

Each pixel i of the grid is paired with the pixels j = i + d below it, or to its right, that are nearer than the radius.
The pixels that have all their partners inside an (h, w) grid are its sources: rows 0 .. h - r - 1 and columns
r .. w - r - 1, where r, the reach of the paths, is the radius - 1. Values of the pairs in one direction d form a plane
of sources, (*b, h - r, w - 2r), computed from shifted windows of the grid, without a gather. There are many directions,
so `over_paths` computes one plane at a time, and a loss needs to store none.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..machine.devices import traces_for_cpus

# Paths that GPUs and TPUs follow in one loop, with as many cells as the longest of them has.
_IN_A_LOOP = 32


class Path(NamedTuple):
    """The path from a source to its partner.

    Attributes:
        direction: (rows, columns) from the source to its partner.
        cells: (rows, columns) from the source of all cells on the path: those in the bounding box of the two that are
            nearer than one cell to the line, both ends included, the partner first.
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
    """Rows and columns by which the paths extend: the radius - 1.

    Args:
        paths: from `search_paths`.

    Returns:
        r.
    """
    return max(path.direction[1] for path in paths)


def window(grid: jax.Array, offset: tuple[int, int] | jax.Array, r: int) -> jax.Array:
    """The values at x = i + offset, for all sources i.

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
    """Apply a function to every path, one path at a time.

    Intermediate values are not stored, but recomputed for the gradient.

    Args:
        measure: called with the direction of a path, int (2,), and a function from edges, float (*b, h, w), to the
            affinities along the path, float (*b, h - r, w - 2r). The gradient of an affinity goes to the strongest
            cell of the path, or the first of several.
        paths: p paths from `search_paths`.

    Returns:
        The arrays that `measure` returns, with a leading axis p.
    """
    return (_cell_by_cell if traces_for_cpus() else _all_cells_at_once)(measure, paths, reach(paths))


def affinity(edges: jax.Array, paths: tuple[Path, ...]) -> jax.Array:
    """One minus the strongest edge on the path, for all sources and directions.

    Args:
        edges: float (*b, h, w), probabilities of an edge in [0, 1].
        paths: p paths from `search_paths`.

    Returns:
        float (p, *b, h - r, w - 2r), in [0, 1].

    Source: IRN, net/resnet50_irn.py (there a gather of all cells of all paths).
    """
    return over_paths(lambda _, along: along(edges), paths)


def _cell_by_cell(measure, paths, r):
    """For CPUs, whose caches hold a plane: loops over paths, and over the cells of each."""
    cells = jnp.array([cell for path in paths for cell in path.cells])
    ends = jnp.cumsum(jnp.array([len(path.cells) for path in paths]))
    spans = jnp.stack([jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]]), ends], axis=-1)

    @jax.checkpoint
    def follow(span):
        return measure(_at(cells, span[0]), lambda edges: 1 - _strongest(edges, cells, span, r))

    return lax.map(follow, spans)


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
        total, remaining = state
        cell = _at(cells, index)
        share = jnp.where(window(edges, cell, r) == strongest, remaining, 0)
        updated = lax.dynamic_update_slice(total, window(total, cell, r) + share, _corner(total, cell, r))
        return updated, remaining - share

    total, _ = lax.fori_loop(span[0], span[1], visit, (jnp.zeros_like(edges), cotangent))
    return total, None, None


_strongest.defvjp(_strongest_forward, _strongest_backward)


def _all_cells_at_once(measure, paths, r):
    """For GPUs and TPUs, to which a step of a loop is dear: one for a path, whose cells are unrolled."""

    @jax.checkpoint
    def follow(cells):
        return measure(cells[0], lambda edges: 1 - _strongest_of(edges, cells, r))

    groups = [paths[start : start + _IN_A_LOOP] for start in range(0, len(paths), _IN_A_LOOP)]
    results = [lax.map(follow, _as_long_as_the_last(group)) for group in groups]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *results)


def _as_long_as_the_last(paths: tuple[Path, ...]) -> jax.Array:
    """Cells of paths of ascending length, int (p, n, 2): the source, the last cell, is repeated, which changes none."""
    n = len(paths[-1].cells)
    return jnp.array([path.cells + path.cells[-1:] * (n - len(path.cells)) for path in paths])


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _strongest_of(edges, cells, r):
    """The largest edge among the cells, int (n, 2), for all sources."""
    return reduce(jnp.maximum, (window(edges, cell, r) for cell in cells))


def _strongest_of_forward(edges, cells, r):
    strongest = _strongest_of(edges, cells, r)
    return strongest, (edges, cells, strongest)


def _strongest_of_backward(r, inputs, cotangent):
    edges, cells, strongest = inputs
    first = jnp.full(strongest.shape, len(cells))
    for number in reversed(range(len(cells))):
        first = jnp.where(window(edges, cells[number], r) == strongest, number, first)
    # Gathered, not scattered: what an edge gets from all sources whose path has its strongest cell there.
    margins = [(0, 0)] * (edges.ndim - 2) + [(r, r), (2 * r, 2 * r)]
    first, cotangent = (jnp.pad(plane, margins) for plane in (first, cotangent))
    total = jnp.zeros_like(edges)
    for number, (row, column) in enumerate(cells):
        start = (*[0] * (edges.ndim - 2), r - row, r - column)
        there, share = (lax.dynamic_slice(plane, start, edges.shape) for plane in (first, cotangent))
        total += jnp.where(there == number, share, 0)
    return total, None


_strongest_of.defvjp(_strongest_of_forward, _strongest_of_backward)


def _cells(row: int, column: int) -> tuple[tuple[int, int], ...]:
    """The cells of the path to (row, column), the farthest first."""
    box = [(y, x) for y in range(row + 1) for x in range(min(0, column), max(0, column) + 1)]
    near = [(y, x) for y, x in box if (row * x - column * y) ** 2 < row * row + column * column]
    return tuple(sorted(near, key=lambda cell: -abs(cell[0]) - abs(cell[1])))


def _at(cells, index):
    # Without the barrier, under jax.vmap, XLA (in jax 0.10.2) fails to compile the fused look-up and window.
    return lax.optimization_barrier(cells[index])


def _corner(grid, offset, r):
    """The start indices of the window of all i + offset."""
    return (*[0] * (grid.ndim - 2), offset[0], r + offset[1])
