"""Evidence spreads to positions that look alike, as the network and the colours of the picture tell (LPCAM-A).

Beyond the paper. Two positions of a picture are alike if their features and their colours are:

    a(x, y) = max(0, cos(g(x), g(y)))^p  exp( -|c(x) - c(y)|^2 / (2 s^2) )          A = a / its row sums

LPCAM is evidence with a sign, for the class or for its context, before the ReLU cuts the context off. It is averaged
over what is alike, several times; the context's evidence, and that of other classes, spreads as the class's does, and
holds it back. But the context is most of a picture, and may be the surer: its say is limited.

    e_n <- max(e_n, -share max_x e_n)  -  max(0, e_m of every other class m)          then  e <- A e,  t times

So a leg that the class's prototypes miss is pulled by the body, and the meadow by the rest of the meadow. Features that
have not yet forgotten where edges are, those before the last stage, do this best.

A is a dense matrix of all pairs of positions: `coarser` bounds it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

# A matrix of at most 64 MiB in float32; 512 x 512 pixels at stride 8.
MOST_POSITIONS = 4096


@partial(jax.jit, static_argnames=("power", "deviation", "steps", "share"))
def spread(
    evidence: jax.Array,
    features: jax.Array,
    colours: jax.Array,
    *,
    valid: jax.Array | None = None,
    power: int = 16,
    deviation: float = 0.2,
    steps: int = 5,
    share: float = 0.25,
) -> jax.Array:
    """The evidence of each class, less that of its strongest rival, averaged over positions that are alike.

        A^t ( max(e_n, -share max_x e_n) - max(0, max_{m != n} e_m) )

    Args:
        evidence: float (m, n), of m positions for the n classes of the picture, with its sign.
        features: float (m, d), of any length; a zero feature is like nothing, not even itself, and gives 0.
        colours: float (m, 3), in [0, 1].
        valid: bool (m,), which positions belong to the picture; None: all. Others have no influence.
        power: p; the larger, the more alike positions have to be.
        deviation: s, of colours.
        steps: t.
        share: how far against a class the evidence can be, as a share of the strongest for it.

    Returns:
        float32 (m, n), 0 where invalid.

    Source: propagation by self-correlation, as in CLIP-ES and MCTformer, there of maps that are positive.
    """
    valid = jnp.ones(len(evidence), bool) if valid is None else valid
    evidence, features, colours = (
        jnp.where(valid[:, None], jnp.asarray(one, jnp.float32), 0) for one in (evidence, features, colours)
    )
    unit = features * jax.lax.rsqrt(jnp.maximum(jnp.sum(features**2, axis=1, keepdims=True), 1e-12))
    alike = jax.nn.relu(jnp.matmul(unit, unit.T, precision="highest")) ** power
    # |c(x) - c(y)|^2 by differences: products of colours would round close ones apart.
    distances = sum((channel[:, None] - channel[None]) ** 2 for channel in colours.T)
    affinity = alike * jnp.exp(distances / (-2 * deviation**2))
    affinity = jnp.where(valid[None], affinity, 0)
    affinity = affinity / jnp.maximum(affinity.sum(axis=1, keepdims=True), 1e-12)

    def step(_, heat):
        return jnp.matmul(affinity, heat, precision="highest")

    start = _limited(evidence, share) - _rivals(evidence)
    return jnp.where(valid[:, None], jax.lax.fori_loop(0, steps, step, start), 0)


def _limited(evidence: jax.Array, share: float) -> jax.Array:
    """What is against a class is at most this share of the strongest that is for it: float (m, n)."""
    return jnp.maximum(evidence, -share * jnp.maximum(evidence.max(axis=0, keepdims=True), 0))


def _rivals(evidence: jax.Array) -> jax.Array:
    """The strongest evidence for another class, or 0: float (m, n)."""
    is_best = jax.nn.one_hot(evidence.argmax(axis=1), evidence.shape[1], dtype=bool)
    best, next_best = (
        jnp.maximum(of.max(axis=1, keepdims=True), 0) for of in (evidence, jnp.where(is_best, 0, evidence))
    )
    return jnp.where(is_best, next_best, best)


def coarser(grid: np.ndarray, *, most: int = MOST_POSITIONS) -> tuple[np.ndarray, int]:
    """Average blocks of positions, so that few are left.

    Args:
        grid: float (h, w, d).
        most: positions that may be left.

    Returns:
        float32 (ceil(h / k), ceil(w / k), d), means of the blocks, those at the edges of what they have (of one
        position: the grid itself); and k, the smallest with at most that many.
    """
    h, w, _ = grid.shape
    k = next(k for k in range(1, max(h, w) + 1) if -(-h // k) * -(-w // k) <= most)
    rows, columns = np.arange(0, h, k), np.arange(0, w, k)
    if k == 1:
        return grid, k
    sums = np.add.reduceat(np.add.reduceat(grid.astype(np.float32), rows, axis=0), columns, axis=1)
    counts = np.multiply.outer(np.minimum(k, h - rows), np.minimum(k, w - columns))
    return sums / counts[..., None].astype(np.float32), k
