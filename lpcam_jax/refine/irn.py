"""IRN's training: edges from labels that are only known in places.

Two near pixels with the same confident label should have no edge between them, two with different labels should; and
displacements, which point to the middle of one's object, should differ by where the pixels are. The labels are
`seeds.ir_labels` of two masks, at the size of the grid; the loss is `affinity_loss` + `displacement_loss`.

Source: Ahn, Cho and Kwak, Weakly supervised learning of instance segmentation with inter-pixel relations (2019).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .paths import Path, reach, window

EPSILON = 1e-5


class PairTargets(NamedTuple):
    """What the labels say of pairs of pixels; a pair with an unsure pixel is in none of the three.

    background, foreground: bool (p, *b, h - r, w - 2r), both pixels are background, or both of the same class.
    different: bool (p, *b, h - r, w - 2r), their labels differ.
    """

    background: jax.Array
    foreground: jax.Array
    different: jax.Array


def pair_targets(labels: jax.Array, paths: tuple[Path, ...], *, classes: int) -> PairTargets:
    """Which pairs are alike, and which are not.

    Args:
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above `classes`, such as 255, is unsure.
        paths: p of them, of `search_paths`.
        classes: how many there are.

    Returns:
        PairTargets.

    Source: IRN, voc12/dataloader.py, GetAffinityLabelFromIndices.
    """
    r = reach(paths)
    source = window(labels, (0, 0), r)

    def compare(direction):
        partner = window(labels, direction, r)
        valid, same = (source <= classes) & (partner <= classes), source == partner
        return PairTargets(valid & same & (source == 0), valid & same & (source > 0), valid & ~same)

    return lax.map(compare, _directions(paths))


def affinity_loss(affinities: jax.Array, targets: PairTargets) -> jax.Array:
    """Cross entropy of the affinities; background, foreground and different pairs have fixed shares.

        1/2 (1/2 mean_background -log(a + e) + 1/2 mean_foreground -log(a + e) + mean_different -log(1 + e - a))

    with e = 1e-5, added also to the number of pairs that a mean divides by: a mean of no pairs is 0. Means are over
    the whole batch.

    Args:
        affinities: float (p, *b, h - r, w - 2r), of `paths.affinity`, in [0, 1].
        targets: of `pair_targets`, of the same shape.

    Returns:
        float ().

    Source: IRN, step/train_irn.py.
    """

    def mean(losses, pairs):
        return jnp.where(pairs, losses, 0).sum() / (pairs.sum() + EPSILON)

    alike, different = -jnp.log(affinities + EPSILON), -jnp.log(1 + EPSILON - affinities)
    positive = mean(alike, targets.background) / 2 + mean(alike, targets.foreground) / 2
    return (positive + mean(different, targets.different)) / 2


def displacement_loss(displacements: jax.Array, targets: PairTargets, paths: tuple[Path, ...]) -> jax.Array:
    """Pixels of an object point to the same place, those of the background nowhere in particular.

        1/2 mean_foreground |D(i) - D(j) - (j - i)| + 1/2 mean_background |D(i) - D(j)|

    Means are over the pairs of the whole batch and over rows and columns, with 1e-5 added to their number: a mean of
    no pairs is 0.

    Args:
        displacements: float (*b, h, w, 2), D, in rows and columns.
        targets: of `pair_targets`, (p, *b, h - r, w - 2r).
        paths: those of the targets.

    Returns:
        float ().

    Source: IRN, step/train_irn.py.
    """
    r = reach(paths)
    fields = jnp.moveaxis(displacements, -1, 0)
    source = window(fields, (0, 0), r)

    @jax.checkpoint  # the differences of all directions would be twice the size of the affinities
    def add(sums, pairs):
        direction, background, foreground = pairs
        difference = source - window(fields, direction, r)
        wanted = direction.astype(difference.dtype).reshape(2, *[1] * (difference.ndim - 1))
        on_objects = jnp.where(foreground[None], jnp.abs(difference - wanted), 0).sum()
        elsewhere = jnp.where(background[None], jnp.abs(difference), 0).sum()
        return (sums[0] + on_objects, sums[1] + elsewhere), None

    zero = jnp.zeros((), fields.dtype)
    pairs = (_directions(paths), targets.background, targets.foreground)
    (on_objects, elsewhere), _ = lax.scan(add, (zero, zero), pairs)
    on_objects /= 2 * targets.foreground.sum() + EPSILON
    elsewhere /= 2 * targets.background.sum() + EPSILON
    return (on_objects + elsewhere) / 2


def _directions(paths):
    return jnp.array([path.direction for path in paths])
