"""Gaussian sums over many points in a few dimensions, by the permutohedral lattice.

    sums_i = sum_j exp( -|p_i - p_j|^2 / 2 ) v_j            n points of d dimensions, at a cost of n d^2 instead of n^2

The lattice tiles space with equal simplices of d + 1 corners each. Every point adds its values to the corners of its
simplex, with barycentric weights (splat); the values are blurred by 1/2, 1, 1/2 along each of the d + 1 directions of
the lattice; every point interpolates between the corners of its simplex (slice). Only corners near a point are stored.

A corner has d + 1 integer coordinates that sum to 0 and are all congruent modulo d + 1; their remainder is its kind,
and every simplex has one corner of each kind. So the corners are found by sorting, one kind at a time, and no kind has
more corners than there are points.

Source: Adams, Baek and Davis, Fast high-dimensional filtering using the permutohedral lattice (2010).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# The code of no corner.
NOWHERE = np.uint32(2**32 - 1)


class Corners(NamedTuple):
    """The corners around n points.

    Attributes:
        codes: uint32 (d + 1, n), code of each point's corner of each kind.
        weights: float32 (d + 1, n), barycentric; 0 for points that do not exist.
        sorted_codes: uint32 (d + 1, n), the same codes, sorted.
        sorted_numbers: int32 (d + 1, n), numbers of their corners, from 0 in each kind.
        steps: uint32 (d + 1,), the amount that a step along each direction subtracts from a code.
    """

    codes: jax.Array
    weights: jax.Array
    sorted_codes: jax.Array
    sorted_numbers: jax.Array
    steps: jax.Array


class Lattice(NamedTuple):
    """The stored corners: corner i of kind k is row `capacity * k + i`. The last row is always empty.

    Attributes:
        rows: int32 (d + 1, n), row of each point's corner of each kind.
        weights: float32 (d + 1, n), barycentric; 0 for points that do not exist.
        neighbours: int32 (d + 1, 2, rows), the rows before and after in each direction; the last row for none.
    """

    rows: jax.Array
    weights: jax.Array
    neighbours: jax.Array


def with_gaussian_sums(points: jax.Array, exists: jax.Array, use: Callable[[Callable], jax.Array]) -> jax.Array:
    """`use(sums)`, where `sums` maps float32 values (n, c) of the points to their Gaussian sums (n, c).

    The sums are correct up to a factor common to all points, and within a few percent. Points usually share corners,
    but the number of corners depends on the data: so `use` is compiled twice, with capacity for a quarter as many
    corners as points, and for as many; the first is run if it suffices. Under `jax.vmap`, both run.

    Args:
        points: float32 (n, d), in standard deviations. Corners are identified by 32 bits: exact while the bounding box
            of the points holds fewer than 2^32 corners of a kind, as for photographs; beyond that the code is a hash,
            and a few corners in a million collide.
        exists: bool (n,), not all False; the other points neither contribute nor receive anything.
        use: a function that may call `sums` any number of times.

    Returns:
        The value that `use` returns.
    """
    n = len(points)
    corners = _corners(points, exists)
    capacity = n // 4 + 1
    return jax.lax.cond(
        corners.sorted_numbers.max() + 1 < capacity,
        lambda: use(partial(_sums, _lattice(corners, capacity))),
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
    # A code has a digit for every coordinate but the last, with one spare value at either end for neighbours.
    bases = (highest - lowest + 3).reshape(d).astype(jnp.uint32)
    places = jnp.concatenate([jnp.ones(1, jnp.uint32), jnp.cumprod(bases[:-1], dtype=jnp.uint32)])
    digits = (corners - lowest + 1).astype(jnp.uint32)
    codes = jnp.sum(digits * places[None, :, None], axis=1, dtype=jnp.uint32)
    # Only the codes are sorted, and looked up later: sorting them together with the points takes four times as long.
    ordered = jnp.sort(codes, axis=1)
    fresh = jnp.pad(ordered[:, 1:] != ordered[:, :-1], ((0, 0), (1, 0)))
    numbers = jnp.cumsum(fresh, axis=1, dtype=jnp.int32)
    return Corners(codes, jnp.where(exists[None], weights, 0), ordered, numbers, jnp.append(places, jnp.uint32(0)))


def _simplices(points: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The corners (d + 1 kinds, d, n) of the simplex around each point (n, d), and their weights (d + 1 kinds, n).

    A corner x is represented by the integers (x - kind) / (d + 1); the last coordinate follows from the others.
    """
    d = points.shape[1]
    # Embed into the plane of sum 0 in d + 1 dimensions, scaled so that the blur has a standard deviation of 1.
    columns = [[1] * i + [-i] + [0] * (d - i) for i in range(1, d + 1)]
    plane = np.array(columns) * (np.sqrt(2 / 3) * (d + 1) / np.sqrt([[i * (i + 1)] for i in range(1, d + 1)]))
    x = jnp.einsum("nd,dk->kn", points, plane.astype(np.float32), precision="highest") / (d + 1)

    # The nearest corner of kind 0: round, then undo the excess where rounding changed the most.
    nearest = jnp.round(x)
    rest = x - nearest
    axes = np.arange(d + 1)
    above = rest[None] > rest[:, None]
    tied = (rest[None] == rest[:, None]) & (axes[None] < axes[:, None])[..., None]
    rank = jnp.sum(above | tied, axis=1, dtype=jnp.int32) + nearest.sum(axis=0, keepdims=True).astype(jnp.int32)
    wrapped = (rank < 0).astype(jnp.int32) - (rank > d).astype(jnp.int32)
    rank, rest = rank + (d + 1) * wrapped, rest - wrapped
    nearest = nearest.astype(jnp.int32) + wrapped

    # The other corners follow by incrementing the coordinates of the lowest ranks, one by one.
    descending = jnp.sum(jnp.where(rank[None] == axes[:, None, None], rest[None], 0), axis=1)
    weights = (descending - jnp.roll(descending, -1, axis=0))[::-1] + (axes == 0)[:, None].astype(np.float32)
    corners = nearest[None] - (rank[None] > (d - axes)[:, None, None])
    return corners[:, :d], weights


def _lattice(corners: Corners, capacity: int) -> Lattice:
    """The lattice with capacity for this many corners of a kind, at least one more than there are.

    A step along direction k adds 1 to all coordinates and subtracts d + 1 from coordinate k. The kind increases by 1;
    the last kind wraps around to the first, with all integers incremented.
    """
    kinds = np.arange(len(corners.steps), dtype=np.int32)[:, None]
    codes = jnp.full((kinds.size, capacity), NOWHERE)
    codes = codes.at[kinds, corners.sorted_numbers].set(corners.sorted_codes, mode="drop")
    search = jax.vmap(jnp.searchsorted)
    following, following_kinds = jnp.roll(codes, -1, axis=0), np.roll(kinds, -1)
    carry = jnp.where(following_kinds == 0, corners.steps.sum(dtype=jnp.uint32), 0)
    nowhere = kinds.size * capacity - 1

    def neighbours(step):
        target = codes + (carry - step)
        numbers = search(following, target)
        hit = (jnp.take_along_axis(following, numbers, axis=1, mode="clip") == target) & (codes != NOWHERE)
        after = jnp.where(hit, capacity * following_kinds + numbers, nowhere).reshape(-1)
        before = jnp.full_like(after, nowhere).at[after].set(jnp.arange(after.size, dtype=after.dtype))
        return jnp.stack([before.at[nowhere].set(nowhere), after])

    rows = capacity * kinds + search(codes, corners.codes)
    return Lattice(rows, corners.weights, jax.lax.map(neighbours, corners.steps))
