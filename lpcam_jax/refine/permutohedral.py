"""Gaussian sums over many points in a few dimensions, by the permutohedral lattice.

    sums_i = sum_j exp( -|p_i - p_j|^2 / 2 ) v_j            n points of d dimensions, at a cost of n d^2 instead of n^2

The lattice tiles space with equal simplices of d + 1 corners each. A point spreads its values to the corners of the
simplex it is in, by barycentric weights (splat); the values are blurred by 1/2, 1, 1/2 along each of the d + 1
directions of the lattice; every point reads the corners of its simplex again (slice). Only corners with a point nearby
exist.

A corner has d + 1 integer coordinates of sum 0 that are all congruent modulo d + 1; that remainder is its kind, and
every simplex has one corner of each kind. So the corners are found by sorting, a kind at a time, and no kind has more
of them than there are points.

Source: Adams, Baek and Davis, Fast high-dimensional filtering using the permutohedral lattice (2010).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# Nothing has this code.
NOWHERE = np.uint32(2**32 - 1)


class Corners(NamedTuple):
    """The corners around n points."""

    codes: jax.Array  # uint32 (d + 1, n), of the corner of each kind of each point
    weights: jax.Array  # float32 (d + 1, n), barycentric; 0 for points that do not exist
    sorted_codes: jax.Array  # uint32 (d + 1, n), the same codes
    sorted_numbers: jax.Array  # int32 (d + 1, n), of their corners: from 0, in each kind
    steps: jax.Array  # uint32 (d + 1,), what a step along each direction takes from a code


class Lattice(NamedTuple):
    """Room for so many corners of every kind: number i of kind k is row room k + i. The last row is always empty."""

    rows: jax.Array  # int32 (d + 1, n), of the corner of each kind of each point
    weights: jax.Array  # float32 (d + 1, n), barycentric; 0 for points that do not exist
    neighbours: jax.Array  # int32 (d + 1, 2, rows), the rows before and after in each direction; the last for none


def with_gaussian_sums(points: jax.Array, exists: jax.Array, use: Callable[[Callable], jax.Array]) -> jax.Array:
    """`use(sums)`, where `sums` maps float32 values (n, c) of the points to their Gaussian sums (n, c).

    The sums are right up to a factor that is the same for all points, and within a few percent. Points mostly share
    their corners, but how many there are is only known when they are counted: `use` is compiled twice, with room for a
    quarter as many as points, and for as many; the first runs if that suffices. Under `jax.vmap` both run.

    Args:
        points: float32 (n, d), in standard deviations. Corners are told apart by 32 bits: exact while the box around
            all points has less than 2^32 corners of a kind, as those of photographs have; beyond that it is a hash,
            and a few in a million corners are confused.
        exists: bool (n,), not all False; the other points neither give nor get anything.
        use: a function that may call `sums` as often as it likes.

    Returns:
        What `use` returns.
    """
    n = len(points)
    corners = _corners(points, exists)
    room = n // 4 + 1
    return jax.lax.cond(
        corners.sorted_numbers.max() + 1 < room,
        lambda: use(partial(_sums, _lattice(corners, room))),
        lambda: use(partial(_sums, _lattice(corners, n + 1))),
    )


def _sums(lattice: Lattice, values: jax.Array) -> jax.Array:
    """Splat, blur, slice: (n, c) -> (n, c)."""
    corners = jnp.zeros((lattice.neighbours.shape[2], values.shape[1]), values.dtype)
    kinds = lattice.rows, lattice.weights

    def splat(corners, kind):
        rows, weights = kind
        return corners.at[rows].add(weights[:, None] * values), None

    def blur(corners, neighbours):
        before, after = neighbours
        return corners + (corners[before] + corners[after]) / 2, None

    def read(sums, kind):
        rows, weights = kind
        return sums + weights[:, None] * corners[rows], None

    corners, _ = jax.lax.scan(splat, corners, kinds)
    corners, _ = jax.lax.scan(blur, corners, lattice.neighbours)
    return jax.lax.scan(read, jnp.zeros_like(values), kinds)[0]


def _corners(points: jax.Array, exists: jax.Array) -> Corners:
    """The corners around the points that exist."""
    d = points.shape[1]
    somewhere = points[jnp.argmax(exists)]
    corners, weights = _simplices(jnp.where(exists[:, None], points, somewhere[None]))
    lowest, highest = corners.min(axis=(0, 2), keepdims=True), corners.max(axis=(0, 2), keepdims=True)
    # A code has a digit for every coordinate but the last, with room for a neighbour at either end.
    bases = (highest - lowest + 3).reshape(d).astype(jnp.uint32)
    places = jnp.concatenate([jnp.ones(1, jnp.uint32), jnp.cumprod(bases[:-1], dtype=jnp.uint32)])
    digits = (corners - lowest + 1).astype(jnp.uint32)
    codes = jnp.sum(digits * places[None, :, None], axis=1, dtype=jnp.uint32)
    # The codes alone are sorted, and looked up later: to sort each with its point would take four times as long.
    ordered = jnp.sort(codes, axis=1)
    fresh = jnp.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)))
    numbers = jnp.cumsum(fresh, axis=1, dtype=jnp.int32)
    return Corners(codes, jnp.where(exists[None], weights, 0), ordered, numbers, jnp.append(places, jnp.uint32(0)))


def _simplices(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The corners (d + 1 kinds, d, n) of the simplex around each point (n, d), and their weights (d + 1 kinds, n).

    A corner x is given by (x - kind) / (d + 1), whole numbers; the last one follows from the others.
    """
    d = points.shape[1]
    # Onto the plane of sum 0 in d + 1 dimensions, where the blur has a standard deviation of 1.
    columns = [[1] * i + [-i] + [0] * (d - i) for i in range(1, d + 1)]
    plane = np.array(columns) * (np.sqrt(2 / 3) * (d + 1) / np.sqrt([[i * (i + 1)] for i in range(1, d + 1)]))
    x = jnp.einsum("nd,dk->kn", points, plane.astype(np.float32), precision="highest") / (d + 1)

    # The nearest corner of kind 0: round, then take the excess back where rounding changed the most.
    nearest = jnp.round(x)
    rest = x - nearest
    axes = np.arange(d + 1)
    above = rest[None] > rest[:, None]
    tied = (rest[None] == rest[:, None]) & (axes[None] < axes[:, None])[..., None]
    rank = jnp.sum(above | tied, axis=1, dtype=jnp.int32) + nearest.sum(axis=0, keepdims=True).astype(jnp.int32)
    wrapped = (rank < 0).astype(jnp.int32) - (rank > d).astype(jnp.int32)
    rank, rest = rank + (d + 1) * wrapped, rest - wrapped
    nearest = nearest.astype(jnp.int32) + wrapped

    # The other corners lie where the coordinates of the lowest ranks, one by one, go up.
    descending = jnp.sum(jnp.where(rank[None] == axes[:, None, None], rest[None], 0), axis=1)
    weights = (descending - jnp.roll(descending, -1, axis=0))[::-1] + (axes == 0)[:, None].astype(np.float32)
    corners = nearest[None] - (rank[None] > (d - axes)[:, None, None])
    return corners[:, :d], weights


def _lattice(corners: Corners, room: int) -> Lattice:
    """The lattice with room for so many corners of a kind, one more than there are, at least.

    One step along direction k adds 1 to all coordinates and takes d + 1 from coordinate k. The kind grows by 1; after
    the last comes the first, with all whole numbers one higher.
    """
    kinds = np.arange(len(corners.steps), dtype=np.int32)[:, None]
    codes = jnp.full((kinds.size, room), NOWHERE)
    codes = codes.at[kinds, corners.sorted_numbers].set(corners.sorted_codes, mode="drop")
    search = jax.vmap(jnp.searchsorted)
    following, following_kinds = jnp.roll(codes, -1, axis=0), np.roll(kinds, -1)
    carry = jnp.where(following_kinds == 0, corners.steps.sum(dtype=jnp.uint32), 0)
    nowhere = kinds.size * room - 1

    def neighbours(step):
        wanted = codes + (carry - step)
        numbers = search(following, wanted)
        hit = (jnp.take_along_axis(following, numbers, axis=1, mode="clip") == wanted) & (codes != NOWHERE)
        after = jnp.where(hit, room * following_kinds + numbers, nowhere).reshape(-1)
        before = jnp.full_like(after, nowhere).at[after].set(jnp.arange(after.size, dtype=after.dtype))
        return jnp.stack([before.at[nowhere].set(nowhere), after])

    rows = room * kinds + search(codes, corners.codes)
    return Lattice(rows, corners.weights, jax.lax.map(neighbours, corners.steps))
