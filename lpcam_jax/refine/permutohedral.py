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
    """The corners around n points: those of a kind are numbered from 0, in the order of their codes."""

    numbers: jax.Array  # int32 (d + 1, n), of the corner of each kind of each point
    weights: jax.Array  # float32 (d + 1, n), barycentric; 0 for points that do not exist
    sorted_codes: jax.Array  # uint32 (d + 1, n), of each corner as often as points have it
    sorted_numbers: jax.Array  # int32 (d + 1, n), their numbers
    places: jax.Array  # uint32 (d + 1,), what a step along each direction subtracts from a code
    count: jax.Array  # int32 (), of the kind that has the most


class Lattice(NamedTuple):
    """Room for so many corners of every kind: number i of kind k is row (d + 1) i + k. The last row is always empty."""

    rows: jax.Array  # int32 (d + 1, n), of the corner of each kind of each point
    weights: jax.Array  # float32 (d + 1, n)
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
        corners.count < room,
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

    def slice_(sums, kind):
        rows, weights = kind
        return sums + weights[:, None] * corners[rows], None

    corners, _ = jax.lax.scan(splat, corners, kinds)
    corners, _ = jax.lax.scan(blur, corners, lattice.neighbours)
    return jax.lax.scan(slice_, jnp.zeros_like(values), kinds)[0]


def _corners(points: jax.Array, exists: jax.Array) -> Corners:
    """The corners around the points that exist."""
    n, d = points.shape
    somewhere = points[jnp.argmax(exists)]
    corners, weights = _simplices(jnp.where(exists[:, None], points, somewhere[None]))
    lowest, highest = corners.min(axis=(0, 2), keepdims=True), corners.max(axis=(0, 2), keepdims=True)
    # A code has a digit for every coordinate, with room for a neighbour at either end.
    bases = (highest - lowest + 3).reshape(d).astype(jnp.uint32)
    places = jnp.concatenate([jnp.ones(1, jnp.uint32), jnp.cumprod(bases[:-1], dtype=jnp.uint32)])
    digits = (corners - lowest + 1).astype(jnp.uint32)
    codes = jnp.sum(digits * places[None, :, None], axis=1, dtype=jnp.uint32)

    order = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32)[None], codes.shape)
    codes, order = jax.lax.sort_key_val(codes, order)
    fresh = jnp.pad(codes[:, 1:] != codes[:, :-1], ((0, 0), (1, 0)))
    sorted_numbers = jnp.cumsum(fresh, axis=1, dtype=jnp.int32)
    numbers = jnp.zeros_like(order).at[np.arange(d + 1)[:, None], order].set(sorted_numbers)
    weights = jnp.where(exists[None], weights, 0)
    places = jnp.append(places, jnp.uint32(0))  # the last coordinate has no digit
    return Corners(numbers, weights, codes, sorted_numbers, places, sorted_numbers.max() + 1)


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
    kinds = np.arange(len(corners.places), dtype=np.int32)
    codes = jnp.full((room, kinds.size), NOWHERE)
    codes = codes.at[corners.sorted_numbers.T, kinds[None]].set(corners.sorted_codes.T, mode="drop")
    following, following_kind = jnp.roll(codes, -1, axis=1), np.roll(kinds, -1)
    carry = jnp.where(following_kind == 0, corners.places.sum(dtype=jnp.uint32), 0)
    search = jax.vmap(jnp.searchsorted, in_axes=1, out_axes=1)
    nowhere = room * kinds.size - 1

    def neighbours(place):
        wanted = codes + (carry - place)[None]
        number = search(following, wanted)
        hit = (jnp.take_along_axis(following, number, axis=0, mode="clip") == wanted) & (codes != NOWHERE)
        after = jnp.where(hit, kinds.size * number + following_kind[None], nowhere).reshape(-1)
        before = jnp.full_like(after, nowhere).at[after].set(jnp.arange(after.size, dtype=after.dtype))
        return jnp.stack([before.at[nowhere].set(nowhere), after])

    rows = kinds.size * corners.numbers + kinds[:, None]
    return Lattice(rows, corners.weights, jax.lax.map(neighbours, corners.places))
