"""IRN's random walk: heat spreads from where the maps are confident, and stops at edges.

A step of the walk moves the heat of a pixel to its neighbours within the radius, in proportion to their affinity. With
A the symmetric matrix of affinities a(i, j)^beta of all pairs of pixels, and 1 on its diagonal,

    T = A / its column sums          walk(x) = x T^steps

T has a row and a column for every pixel, but each row has only 69 non-zero entries at radius 5. T is never built: only
the 34 planes of affinities are stored, 34 (h + 4) (w + 8) floats (twice that while they are computed): 9 MB for a
picture of 1024 x 1024 pixels, 256 x 256 at stride 4, where T would take 17 GB.

Two identities make the walk short, and accurate in float32:

* Columns sum to 1, so a step is an update by differences, (x T)_j = x_j + sum_i T_ij (x_i - x_j). An equilibrium is
  preserved to the bit; sums of 69 products drift a hundred times further from the result in double precision.
* The eigenvalues of T are in [-1, 1]. There t^s is the mean of the Chebyshev polynomials C_|k|(t) over the sums k of s
  tosses of a coin worth 1 or -1, and C_k+1(t) = 2 t C_k(t) - C_k-1(t). Sums beyond 90 have a probability of less than
  1e-8 at s = 256: 90 steps replace 256.
"""

import math
from collections.abc import Sequence
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..class_activation import resize_bilinear
from .paths import affinity, reach, search_paths

Array = jax.Array | np.ndarray

STRIDE = 4  # pixels of the picture per pixel of the grid


@partial(jax.jit, static_argnames=("radius", "beta", "steps"))
def random_walk(
    maps: jax.Array,
    edges: jax.Array,
    *,
    radius: int = 5,
    beta: float = 10,
    steps: int = 256,
    size: jax.Array | None = None,
) -> jax.Array:
    """The maps after a random walk between edges; nothing starts on an edge.

        (maps * (1 - edges)) T^steps

    Args:
        maps: float (*b, h, w, n), >= 0, at the stride of the edges.
        edges: float (*b, h, w), probabilities of an edge in [0, 1].
        radius: neighbours are nearer than this.
        beta: exponent of the affinities; the larger, the more an edge blocks.
        steps: of the walk.
        size: int (*b, 2), rows and columns of the picture, from the top left; None: all. The result there is that of
            the picture alone, and 0 outside.

    Returns:
        float (*b, h, w, n); for each class at most the maximum of its map.

    Source: IRN, misc/indexing.py, propagate_to_edge. The power: Sachdeva and Vishnoi, Faster algorithms via
        approximation theory (2014).
    """
    if size is not None:
        row, column = (lax.broadcasted_iota(size.dtype, edges.shape, edges.ndim - axis) for axis in (2, 1))
        inside = (row < size[..., 0, None, None]) & (column < size[..., 1, None, None])
        edges, maps = jnp.where(inside, edges, 1), jnp.where(inside[..., None], maps, 0)
    paths = search_paths(radius)
    r = reach(paths)
    # Pad with edges: nothing outside has any affinity.
    around = [(0, 0)] * (edges.ndim - 2) + [(r, r), (2 * r, 2 * r)]
    planes = affinity(jnp.pad(edges, around, constant_values=1), paths)
    return walked(maps * (1 - edges)[..., None], planes**beta, [path.direction for path in paths], steps=steps)


def walked(maps: jax.Array, planes: jax.Array, directions: Sequence[tuple[int, int]], *, steps: int) -> jax.Array:
    """The maps after a random walk by given affinities, maps T^steps.

    Args:
        maps: float (*b, h, w, n).
        planes: float (p, *b, h + r, w + 2 r), affinities of the pairs in each direction on the grid with a margin of r
            rows above and below, r columns on both sides: position (y, x) is that of source (y - r, x - r). 0 where a
            pixel of the pair is outside.
        directions: p (rows, columns) from the sources to their partners, down or to the right.
        steps: of the walk.

    Returns:
        float (*b, h, w, n).
    """
    *_, h, w, _ = maps.shape
    r = planes.shape[-2] - h
    planes, start = planes[..., None, :, :], jnp.moveaxis(maps, -1, -3)

    def shifted(grid, row, column):
        return grid[..., row : row + h, r + column : r + column + w]

    def neighbours():
        """The affinity to every neighbour, and the offset; windows of the planes, sliced where they are used."""
        for plane, (y, x) in zip(planes, directions, strict=True):
            yield shifted(plane, r, 0), (y, x)
            yield shifted(plane, r - y, -x), (-y, -x)

    share = 1 / (1 + _sum_in_pairs([weight for weight, _ in neighbours()]))

    def walk(heat):
        padded = jnp.pad(heat, [(0, 0)] * (heat.ndim - 2) + [(r, r), (r, r)])
        flows = [weight * (shifted(padded, r + y, x) - heat) for weight, (y, x) in neighbours()]
        return heat + share * _sum_in_pairs(flows)

    def step(state, term):
        previous, heat, total = state
        coefficient, factor = term
        following = factor * walk(heat) - (factor - 1) * previous
        return (heat, following, total + coefficient * following), None

    first, *rest = _chebyshev_coefficients(steps)
    factors = np.full(len(rest), 2.0)
    factors[:1] = 1  # C_1(t) = t, then C_k+1(t) = 2 t C_k(t) - C_k-1(t)
    terms = jnp.array(rest, start.dtype), jnp.array(factors, start.dtype)
    (_, _, total), _ = lax.scan(step, (start, start, first * start), terms)
    return jnp.moveaxis(total, -3, -1)


def on_picture(walked: Array, size: tuple[int, int]) -> Array:
    """The walked maps at the size of the picture, divided by their joint maximum: classes keep their proportions.

    Args:
        walked: float (*b, h, w, n), from `random_walk`, without padding.
        size: (H, W) of the picture; if it exceeds (4 h, 4 w), because the backbone's pool dropped the last pixels, or
            because the network saw a smaller picture, the maps are stretched.

    Returns:
        float (*b, H, W, n), at most 1; zeros if nothing is above zero, never NaN. NumPy in, NumPy out.

    Source: IRN, step/make_sem_seg_labels.py.
    """
    xp = walked.__array_namespace__()
    h, w = walked.shape[-3:-1]
    maps = resize_bilinear(walked, (max(STRIDE * h, size[0]), max(STRIDE * w, size[1])), crop=size)
    top = xp.max(maps, axis=(-3, -2, -1), keepdims=True)
    return xp.where(top > 0, maps / xp.where(top > 0, top, xp.ones_like(top)), xp.zeros_like(maps))


def _sum_in_pairs(terms):
    """Pairwise sum of a list: it rounds less than a running sum, and has a shorter dependency chain."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return _sum_in_pairs(terms[:half]) + _sum_in_pairs(terms[half:])


@cache
def _chebyshev_coefficients(steps: int) -> tuple[float, ...]:
    """The coefficients of t^steps, probabilities of |k|, truncated where the rest is below 1e-8; they sum to 1."""
    probabilities = [0.0] * (steps + 1)
    for heads in range(steps + 1):
        probabilities[abs(2 * heads - steps)] += math.comb(steps, heads) / 2**steps
    while len(probabilities) > 1 and sum(probabilities[:-1]) >= 1 - 1e-8:
        probabilities.pop()
    return tuple(probability / sum(probabilities) for probability in probabilities)
