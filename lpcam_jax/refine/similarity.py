"""psa's affinity of pixels: that of their features.

    a(i, j) = exp( -mean over channels |f_i - f_j| )

Pairs and planes are those of `paths`, whose sources are paired with partners below or to the right.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .paths import reach, search_paths, window
from .random_walk import walked


def directions_within(radius: int) -> tuple[tuple[int, int], ...]:
    """(rows, columns) from a pixel to all partners nearer than the radius, one for each pair: 34 at radius 5."""
    return tuple(path.direction for path in search_paths(radius))


def over_directions(measure: Callable[[jax.Array, jax.Array], Any], features: jax.Array, radius: int) -> Any:
    """Apply a function to every direction, one at a time; for the gradient, what it computes is computed again.

    Args:
        measure: called with a direction, int (2,), and the affinities of the pairs in it, float (*b, h - r, w - 2r).
        features: float (*b, h, w, d).
        radius: pairs are nearer than this; r is one less.

    Returns:
        The arrays that `measure` returns, with a leading axis p.
    """
    paths = search_paths(radius)
    r, channels_first = reach(paths), jnp.moveaxis(features, -1, 0)

    @jax.checkpoint
    def one(direction):
        distances = jnp.abs(window(channels_first, (0, 0), r) - window(channels_first, direction, r))
        return measure(direction, jnp.exp(-distances.mean(axis=0)))

    return lax.map(one, jnp.array(directions_within(radius)))


@partial(jax.jit, static_argnames=("radius", "beta", "steps"))
def walk_by_similarity(
    maps: jax.Array,
    features: jax.Array,
    *,
    radius: int = 5,
    beta: float = 8,
    steps: int = 64,
    size: jax.Array | None = None,
) -> jax.Array:
    """The maps after a random walk between pixels of similar features.

        maps T^steps          T = A / its column sums,   A = a(i, j)^beta of pairs nearer than the radius, 1 for i = j

    Args:
        maps: float (*b, h, w, n), >= 0, background included.
        features: float (*b, h, w, d).
        radius: neighbours are nearer than this.
        beta: exponent of the affinities; the larger, the more a difference blocks.
        steps: of the walk.
        size: int (*b, 2), rows and columns of the picture, from the top left; None: all. The result there is that of
            the picture alone.

    Returns:
        float (*b, h, w, n).

    Source: psa, infer_aff.py, which builds T as a dense matrix and squares it six or eight times.
    """
    *batch, h, w, _ = features.shape
    r = reach(search_paths(radius))
    inside = jnp.ones((*batch, h, w), bool)
    if size is not None:
        row, column = (lax.broadcasted_iota(size.dtype, inside.shape, len(batch) + axis) for axis in (0, 1))
        inside = (row < size[..., 0, None, None]) & (column < size[..., 1, None, None])
    around = [(0, 0)] * len(batch) + [(r, r), (2 * r, 2 * r)]
    inside = jnp.pad(inside, around)

    def plane(direction, affinities):
        both = window(inside, (0, 0), r) & window(inside, direction, r)
        return jnp.where(both, affinities, 0) ** beta

    planes = over_directions(plane, jnp.pad(features, [*around, (0, 0)]), radius)
    return walked(maps, planes, directions_within(radius), steps=steps)
