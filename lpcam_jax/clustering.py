"""Spherical k-means, jitted and vmapped over classes (paper, section 3.2).

With unit(x) = x / |x|, each point is assigned to the direction with which it makes the smallest angle:

    a_i = argmax_k  unit(x_i) . u_k                                    assignment
    u_k = unit( sum_{a_i = k} w_i unit(x_i) )         "spherical": never lowers the objective, so it converges
    u_k = unit( sum_{a_i = k} w_i x_i )               "mean": the reference; long features have more influence

    objective = sum_i w_i unit(x_i) . u_{a_i} / sum_i w_i              in [-1, 1]

Raggedness is expressed by weights: points of weight 0, like points of length 0, are ignored. So all classes share one
array, and everything here works under `jax.jit` and `jax.vmap`.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp


class KMeans(NamedTuple):
    """Result of `kmeans`.

    Attributes:
        directions: float (k, d), unit length; an empty cluster keeps its last one.
        means: float (k, d), raw weighted mean of the members, which the classifier scores; 0 if empty. For "mean", as
            in the reference, of the members before the last update.
        counts: float (k,), weight of the members.
        assignment: int32 (n,), nearest direction of every point, also of points of weight 0.
        objective: float (), mean cosine between the points and their directions, in [-1, 1].
        iterations: int32 (), number of updates.
    """

    directions: jax.Array
    means: jax.Array
    counts: jax.Array
    assignment: jax.Array
    objective: jax.Array
    iterations: jax.Array


def inverse_length(vectors: jax.Array) -> jax.Array:
    """1 / |v| over the last axis; 0 for a zero vector, or one whose square under- or overflows in float32.

    Args:
        vectors: float (..., d).

    Returns:
        float (...), of the same dtype, float32 for whole numbers; computed in float32 at least.
    """
    [wide] = _wide(vectors)
    square = jnp.sum(wide * wide, axis=-1)
    inverse = jnp.where(square > 0, jax.lax.rsqrt(jnp.where(square > 0, square, 1)), 0)
    return inverse.astype(vectors.dtype) if jnp.issubdtype(vectors.dtype, jnp.floating) else inverse


def unit(vectors: jax.Array) -> jax.Array:
    """v / |v| over the last axis; where `inverse_length` is 0, zero.

    Args:
        vectors: float (..., d).

    Returns:
        float (..., d), of length 1 or 0.
    """
    return vectors * inverse_length(vectors)[..., None]


def kmeans(
    points: jax.Array,
    weights: jax.Array,
    init: jax.Array,
    *,
    update: Literal["spherical", "mean"] = "spherical",
    tol: float | None = None,
    max_iterations: int = 100,
) -> KMeans:
    """Cluster points by angle from the given centres.

    Stops when (sum_k |change of centre k|)^2 < tol, when nothing changes, or after `max_iterations`. An empty cluster
    takes over the point that is farthest from its direction, unless all points coincide with theirs.

    Args:
        points: float (n, d); of half precision, they are clustered in float32.
        weights: float (n,), >= 0; points of weight 0 are ignored.
        init: float (k, d), starting centres of any length.
        update: how centres are computed from their members; see the module docstring.
        tol: on unit directions for "spherical" (default 1e-6), on raw means for "mean" (default 5, the reference's).
        max_iterations: maximal number of updates.

    Returns:
        KMeans.

    Raises:
        ValueError: `update` is neither.

    Source: paper section 3.2; reference step "make_lpcam" with kmeans_pytorch 0.3, distance cosine ("mean"; there an
    empty cluster becomes NaN, and the loop never ends).
    """
    if update not in ("spherical", "mean"):
        raise ValueError(f"update={update!r}: use 'spherical' or 'mean'")
    tol = {"spherical": 1e-6, "mean": 5.0}[update] if tol is None else tol
    points, weights, init = _wide(points, weights, init)
    return _kmeans(points, weights, init, tol, update=update, max_iterations=max_iterations)


@partial(jax.jit, static_argnames=("update", "max_iterations"))
def _kmeans(points, weights, init, tol, *, update, max_iterations) -> KMeans:
    inverse = inverse_length(points)
    weights = jnp.where(inverse > 0, weights, 0)
    total = jnp.maximum(weights.sum(), jnp.finfo(weights.dtype).tiny)
    k = init.shape[0]

    def assign(directions):
        cosines = _product(points, directions.T) * inverse[:, None]
        return jnp.argmax(cosines, axis=1).astype(jnp.int32), jnp.max(cosines, axis=1)

    def chosen(assignment, point_weights):
        """The weight of each point in each cluster, (n, k). No scatters: many additions to few rows take turns."""
        return jax.nn.one_hot(assignment, k, dtype=points.dtype) * point_weights[:, None]

    def members(assignment, point_weights):
        """Weighted sums over the members of each cluster, (k, d)."""
        return _product(chosen(assignment, point_weights).T, points)

    def raw_means(assignment):
        counts = chosen(assignment, weights).sum(axis=0)
        sums = members(assignment, weights)
        return jnp.where(counts[:, None] > 0, sums / jnp.where(counts > 0, counts, 1)[:, None], 0), counts

    def fill_empty(assignment, served):
        """Assign to the r-th empty cluster the point that is r-th farthest from its direction."""
        counts = chosen(assignment, weights).sum(axis=0)
        spare = jnp.where((weights > 0) & (served < 1 - 1e-5), served, jnp.inf)
        cosine, worst = jax.lax.top_k(-spare, min(k, spare.shape[0]))
        worst = jnp.pad(worst, (0, k - worst.shape[0]))
        free = jnp.pad(jnp.isfinite(cosine), (0, k - cosine.shape[0]))
        rank = jnp.cumsum(counts == 0) - 1
        takes = (counts == 0) & free[jnp.maximum(rank, 0)]
        target = jnp.where(takes, worst[jnp.maximum(rank, 0)], points.shape[0])
        return assignment.at[target].set(jnp.arange(k, dtype=jnp.int32), mode="drop")

    def step(state):
        centres, _, iteration = state
        assignment = fill_empty(*assign(unit(centres)))
        if update == "spherical":
            sums = members(assignment, weights * inverse)
            moved = jnp.where(jnp.any(sums != 0, axis=1, keepdims=True), unit(sums), centres)
        else:
            means, counts = raw_means(assignment)
            moved = jnp.where(counts[:, None] > 0, means, centres)
        shift = jnp.linalg.norm(moved - centres, axis=1).sum() ** 2
        return moved, shift, iteration + 1

    def unfinished(state):
        _, shift, iteration = state
        return (iteration < max_iterations) & (shift > 0) & (shift >= tol)

    start = unit(init) if update == "spherical" else init
    state = (start, jnp.full((), jnp.inf, points.dtype), jnp.zeros((), jnp.int32))
    centres, _, iterations = jax.lax.while_loop(unfinished, step, state)
    directions = unit(centres)
    assignment, served = assign(directions)
    means, counts = raw_means(assignment)
    if update == "mean":
        means = jnp.where(counts[:, None] > 0, centres, 0)
    objective = jnp.sum(weights * served) / total
    return KMeans(directions, means, counts, assignment, objective, iterations)


@partial(jax.jit, static_argnames=("k", "candidates"))
def kmeans_plus_plus(
    key: jax.Array, points: jax.Array, weights: jax.Array, *, k: int, candidates: int = 512
) -> jax.Array:
    """Draw k starting points, each likely to be far from those before.

    The first is drawn by weight, each further one with probability proportional to w_i min(1, 1 - max_j cos(x_i, c_j)):
    no point is further away than one at a right angle. If no remaining point differs from those drawn, the draw falls
    back to the weights; without any point, centres are 0.

    Args:
        key: random key.
        points: float (n, d).
        weights: float (n,), >= 0.
        k: number of centres.
        candidates: if there are more points, choose only among this many, drawn uniformly: every centre needs a pass
            over them, which over 100,000 points would cost k / 3 iterations of `kmeans`.

    Returns:
        float (k, d), rows of `points`, float32 at least.

    Source: Arthur and Vassilvitskii, k-means++ (2007), with the cosine distance; the reference draws k rows uniformly.
    """
    points, weights = _wide(points, weights)
    if points.shape[0] > candidates:
        candidate_key, key = jax.random.split(key)
        draws = jnp.where(weights > 0, jax.random.uniform(candidate_key, weights.shape), -1)
        _, drawn = jax.lax.top_k(draws, candidates)
        points, weights = points[drawn], weights[drawn]
    inverse = inverse_length(points)
    weights = jnp.where(inverse > 0, weights, 0)

    def draw(state, draw_key):
        distance = state
        mass = weights * jnp.where(distance > 1e-6, distance, 0)
        mass = jnp.where(mass.sum() > 0, mass, weights)
        centre = points[jax.random.categorical(draw_key, jnp.log(mass))]
        cosines = _product(points, unit(centre)[:, None])[:, 0] * inverse
        return jnp.minimum(distance, jnp.maximum(1 - cosines, 0)), centre

    _, centres = jax.lax.scan(draw, jnp.ones_like(weights), jax.random.split(key, k))
    return jnp.where(weights.sum() > 0, centres, 0)


@partial(jax.jit, static_argnames=("k", "update", "restarts", "max_iterations"))
def cluster_classes(
    key: jax.Array,
    points: jax.Array,
    weights: jax.Array,
    *,
    k: int = 12,
    update: Literal["spherical", "mean"] = "spherical",
    restarts: int = 1,
    max_iterations: int = 100,
) -> KMeans:
    """Run `kmeans` for every class from `restarts` k-means++ starts, and keep the best objective.

    Args:
        key: random key; or one for each class, (c,), so that classes can be clustered in groups.
        points: float (c, n, d).
        weights: float (c, n).
        k: clusters per class.
        update: see `kmeans`.
        restarts: starts per class.
        max_iterations: see `kmeans`.

    Returns:
        KMeans with a leading axis c on every field.

    Source: paper section 3.2, for all classes.
    """

    def one_start(key, points, weights):
        init = kmeans_plus_plus(key, points, weights, k=k)
        return kmeans(points, weights, init, update=update, max_iterations=max_iterations)

    def one_class(key, points, weights):
        starts = jax.vmap(one_start, in_axes=(0, None, None))(jax.random.split(key, restarts), points, weights)
        best = jnp.argmax(starts.objective)
        return jax.tree.map(lambda leaf: leaf[best], starts)

    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):  # of jax.random.PRNGKey
        key = jax.random.wrap_key_data(key)
    keys = key if key.ndim else jax.random.split(key, points.shape[0])
    return jax.vmap(one_class)(keys, points, weights)


def _wide(*arrays: jax.Array) -> list[jax.Array]:
    """All in one dtype, float32 at least: sums of thousands of members are wrong in half precision."""
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [jnp.asarray(array, dtype) for array in arrays]


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    """Product in full float32: the default on GPU and TPU has lower precision, which would change assignments."""
    return jnp.matmul(left, right, precision="highest")
