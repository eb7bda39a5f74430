"""Gaussian sums over many points in a few dimensions, by the permutohedral lattice.

    sums_i = sum_j exp( -|p_i - p_j|^2 / 2 ) v_j            n points of d dimensions, at a cost of n d^2 instead of n^2

The lattice tiles space with equal simplices of d + 1 corners each. Every point adds its values to the corners of its
simplex, with barycentric weights (splat); the values are blurred by 1/2, 1, 1/2 along each of the d + 1 directions of
the lattice; every point interpolates between the corners of its simplex (slice). Only corners near a point are stored.

A corner has d + 1 integer coordinates that sum to 0 and are all congruent modulo d + 1; their remainder is its kind,
and every simplex has one corner of each kind. So the corners are found one kind at a time, each in its own small hash
table, and no kind has more corners than there are points.

Source: Adams, Baek and Davis, Fast high-dimensional filtering using the permutohedral lattice (2010); for the tables,
Amble and Knuth, Ordered hash tables (1974).
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What a lattice has room for, in corners per point; the least that suffices is used.
CAPACITIES = 1, 2

# Two odd numbers that scatter the bits of what they multiply.
START, STEP = np.uint32(2654435769), np.uint32(2246822519)


class Corners(NamedTuple):
    """The corners around n points.

    Attributes:
        codes: uint32 (d + 1, n), code of each point's corner of each kind, at least 1.
        weights: float32 (d + 1, n), barycentric; 0 for points that do not exist.
        steps: uint32 (d + 1,), the amount that a step along each direction subtracts from a code.
    """

    codes: jax.Array
    weights: jax.Array
    steps: jax.Array


class Lattice(NamedTuple):
    """The corners around n points, and a hash table of those of each kind.

    A code is looked for in one slot after the other, until one holds it, or a smaller one, which means that it is in
    none. So a code gives way to larger ones that look in its slot, and the table is the same in whatever order it is
    filled: by all codes at once.

    Attributes:
        codes: uint32 (d + 1, slots), 0 in an empty slot.
        numbers: int32 (d + 1, slots), of the corners, counted from 0 in each kind.
        slots: int32 (d + 1, n), where each point's corner of each kind is.
        weights: float32 (d + 1, n), barycentric; 0 for points that do not exist.
        steps: uint32 (d + 1,), the amount that a step along each direction subtracts from a code.
        needed: int32 (), one more than there are corners.
    """

    codes: jax.Array
    numbers: jax.Array
    slots: jax.Array
    weights: jax.Array
    steps: jax.Array
    needed: jax.Array

    @property
    def capacities(self) -> tuple[int, ...]:
        """Numbers of rows to store the corners in: the least that suffices is the fastest, the last one always does."""
        kinds, n = self.slots.shape
        return *(n * capacity for capacity in CAPACITIES), n * kinds + 1


class Rows(NamedTuple):
    """The stored corners, kind after kind in rows; the last row is always empty.

    Attributes:
        of_points: int32 (d + 1, n), row of each point's corner of each kind; any row for points that do not exist.
        weights: float32 (d + 1, n), barycentric; 0 for points that do not exist.
        neighbours: int32 (d + 1, 2, rows), the rows before and after in each direction; the last row for none.
    """

    of_points: jax.Array
    weights: jax.Array
    neighbours: jax.Array


def permutohedral_lattice(points: jax.Array, exists: jax.Array) -> Lattice:
    """The lattice around points.

    Args:
        points: float32 (n, d), in standard deviations. Corners are identified by 32 bits: exact while the bounding box
            of the points holds fewer than 2^32 corners of a kind, as for photographs; beyond that the code is a hash,
            and a few corners in a million collide.
        exists: bool (n,), not all False; the other points neither contribute nor receive anything.

    Returns:
        Lattice.
    """
    corners = _corners(points, exists)
    codes, numbers, slots = jax.lax.map(_table, corners.codes)
    return Lattice(codes, numbers, slots, corners.weights, corners.steps, jnp.sum(numbers[:, -1] + 1) + 1)


@partial(jax.jit, static_argnames="capacity")
def lattice_rows(lattice: Lattice, capacity: int) -> Rows:
    """The corners of a lattice in rows, each with its neighbours.

    A step along direction k adds 1 to all coordinates and subtracts d + 1 from coordinate k. The kind increases by 1;
    the last kind wraps around to the first, with all integers incremented.

    Args:
        lattice: of the points.
        capacity: number of rows, one of `lattice.capacities` that is at least `lattice.needed`.
    """
    kinds, size = lattice.codes.shape
    counts = lattice.numbers[:, -1] + 1
    ends = jnp.cumsum(counts)
    table, row_at = lattice.codes.reshape(-1), (lattice.numbers + (ends - counts)[:, None]).reshape(-1)
    nowhere = capacity - 1

    row = jnp.arange(capacity, dtype=jnp.int32)
    codes = jnp.zeros(capacity, jnp.uint32).at[jnp.where(table > 0, row_at, capacity)].set(table, mode="drop")
    kind = jnp.sum(row[None] >= ends[:-1, None], axis=0, dtype=jnp.int32)
    wraps = kind == kinds - 1
    carry, following = jnp.where(wraps, lattice.steps.sum(dtype=jnp.uint32), 0), jnp.where(wraps, 0, kind + 1) * size

    def neighbours(step):
        target = codes + (carry - step)
        slots, next_slots = _probes(target, size)

        def look(state):
            slots, _ = state
            further = _at(table, following + slots) > target
            return jnp.where(further, next_slots(slots), slots), further.any()

        slots, _ = jax.lax.while_loop(lambda state: state[1], look, (slots, True))
        hit = (_at(table, following + slots) == target) & (jnp.minimum(codes, target) > 0)
        after = jnp.where(hit, _at(row_at, following + slots), nowhere)
        before = jnp.full_like(row, nowhere).at[after].set(row, mode="promise_in_bounds")
        return jnp.stack([before.at[nowhere].set(nowhere), after])

    rows = _at(row_at, size * np.arange(kinds, dtype=np.int32)[:, None] + lattice.slots)
    # Points that do not exist add 0, each to another row: to one and the same they would have to wait for one another.
    exists = (lattice.weights != 0).any(axis=0)
    rows = jnp.where(exists, rows, np.arange(exists.size, dtype=np.int32))
    return Rows(rows, lattice.weights, jax.lax.map(neighbours, lattice.steps))


def with_rows(lattice: Lattice, use: Callable[[Rows], jax.Array]) -> jax.Array:
    """`use(lattice_rows(lattice, capacity))` with the least capacity that suffices, where its value is not known yet.

    `use` is compiled for each capacity, and one is run; under `jax.vmap` the first that suffices for the whole batch.
    """
    needed = _largest(lattice.needed)
    return jax.lax.switch(
        jnp.sum(needed > np.array(lattice.capacities)),
        [lambda capacity=capacity: use(lattice_rows(lattice, capacity)) for capacity in lattice.capacities],
    )


@jax.custom_batching.custom_vmap
def _largest(count: jax.Array) -> jax.Array:
    """A count, of a batch the largest: so that what depends on it is the same for all, and done only once."""
    return count


@_largest.def_vmap
def _largest_of_batch(size: int, batched: list[bool], counts: jax.Array) -> tuple[jax.Array, bool]:
    return _largest(counts.max(axis=0)), False


def gaussian_sums(stored: Rows, values: jax.Array) -> jax.Array:
    """sum_j exp( -|p_i - p_j|^2 / 2 ) v_j, up to a factor common to all points, and within a few percent.

    Splat, blur, slice.

    Args:
        stored: the corners around the points.
        values: float32 (n, c).

    Returns:
        float32 (n, c); of points that do not exist, 0.
    """
    corners = jnp.zeros((stored.neighbours.shape[2], values.shape[1]), values.dtype)
    kinds = stored.of_points, stored.weights

    def splat(corners, kind):
        rows, weights = kind
        return corners.at[rows].add(weights[:, None] * values, mode="promise_in_bounds"), None

    def blur(corners, neighbours):
        before, after = neighbours
        return corners + (_at(corners, before) + _at(corners, after)) / 2, None

    def read(sums, kind):
        rows, weights = kind
        return sums + weights[:, None] * _at(corners, rows), None

    corners, _ = jax.lax.scan(splat, corners, kinds)
    corners, _ = jax.lax.scan(blur, corners, stored.neighbours)
    return jax.lax.scan(read, jnp.zeros_like(values), kinds)[0]


def _at(array: jax.Array, rows: jax.Array) -> jax.Array:
    return array.at[rows].get(mode="promise_in_bounds")


def _corners(points: jax.Array, exists: jax.Array) -> Corners:
    """The corners around the points that exist."""
    d = points.shape[1]
    somewhere = points[jnp.argmax(exists)]
    nearest, rank, weights = _simplices(jnp.where(exists[:, None], points, somewhere[None]))
    # A code has a digit for every coordinate but the last, with room for the other corners of the simplices, smaller by
    # 1, and for neighbours, which differ by 1 from any of them.
    lowest, highest = nearest.min(axis=1, keepdims=True), nearest.max(axis=1, keepdims=True)
    bases = (highest - lowest + 4).reshape(-1).astype(jnp.uint32)[:d]
    places = jnp.concatenate([jnp.ones(1, jnp.uint32), jnp.cumprod(bases[:-1], dtype=jnp.uint32)])
    digits = (nearest - lowest + 2).astype(jnp.uint32)
    # The other corners of a simplex follow by decrementing the coordinates of the highest ranks, one by one.
    kinds = np.arange(d + 1)[:, None]
    codes = sum(places[i] * (digits[i : i + 1] - (rank[i : i + 1] > d - kinds)) for i in range(d))
    weights = jnp.where(exists[None], weights, 0)
    return Corners(jnp.maximum(codes, 1), weights, jnp.append(places, jnp.uint32(0)))


def _simplices(points: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The simplices around points (n, d): integers (d + 1, n), ranks (d + 1, n) and weights (d + 1 kinds, n).

    A corner x is represented by the integers (x - kind) / (d + 1). Given here is the corner of kind 0; that of a kind k
    has one less in those coordinates whose rank is above d - k.
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

    descending = sum(jnp.where(rank[i : i + 1] == axes[:, None], rest[i : i + 1], 0) for i in axes)
    weights = (descending - jnp.roll(descending, -1, axis=0))[::-1] + (axes == 0)[:, None].astype(np.float32)
    return nearest, rank, weights


def _table(codes: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The table of the corners of one kind, from their codes (n,): codes, numbers and slots."""
    # One slot at least has to stay empty, or a code would be looked for forever; a quarter, or it would take long.
    size = 1 << max(codes.size, 4 * codes.size // 3 - 1).bit_length()
    slots, next_slots = _probes(codes, size)

    def fill(state):
        table, slots, further = state
        table = table.at[jnp.where(further, slots, size)].max(codes, mode="drop")
        further = _at(table, slots) > codes
        return table, jnp.where(further, next_slots(slots), slots), further

    state = jnp.zeros(size, jnp.uint32), slots, jnp.ones_like(codes, bool)
    table, slots, _ = jax.lax.while_loop(lambda state: state[2].any(), fill, state)
    return table, _running_sum((table > 0).astype(jnp.float32)).astype(jnp.int32) - 1, slots


def _running_sum(counts: jax.Array) -> jax.Array:
    """Sums of the first 1, 2, ... of counts (n,), a power of two of them; float32, exact up to 2^24.

    Matrix products of blocks: `jnp.cumsum` takes a second to compile.
    """
    blocks = counts.reshape(-1, min(counts.size, 64))
    within = jnp.matmul(blocks, np.triu(np.ones([blocks.shape[1]] * 2, np.float32)), precision="highest")
    if len(blocks) == 1:
        return within.reshape(-1)
    totals = within[:, -1]
    return (within + (_running_sum(totals) - totals)[:, None]).reshape(-1)


def _probes(codes: jax.Array, size: int) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """The slot of a table where codes are looked for first, and the function from a slot to the next."""
    shift = 33 - size.bit_length()
    step = (codes * STEP >> shift).astype(jnp.int32) | 1  # odd, so that every slot is reached
    return (codes * START >> shift).astype(jnp.int32), lambda slots: (slots + step) & (size - 1)
