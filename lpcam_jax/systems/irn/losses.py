"""IRN's training: edges from labels that are only known in places.

Two near pixels with the same confident label should have no edge between them, two with different labels should; and
displacements, which point to the middle of one's object, should differ by where the pixels are. The labels are
`seeds.ir_labels` of two masks, at the size of the grid; the loss is `affinity_loss` + `displacement_loss`.

Source: Ahn, Cho and Kwak, Weakly supervised learning of instance segmentation with inter-pixel relations (2019).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ...refine.paths import Path, over_paths, reach, window

EPSILON = 1e-5


class PairTargets(NamedTuple):
    """What two labels say of a pair of pixels; a pair with an unsure pixel is in none of the three.

    background, foreground: bool (*b, h, w), both pixels are background, or both of the same class.
    different: bool (*b, h, w), their labels differ.
    """

    background: jax.Array
    foreground: jax.Array
    different: jax.Array


def pair_targets(source: jax.Array, partner: jax.Array, *, classes: int) -> PairTargets:
    """Which pairs are alike, and which are not.

    Args:
        source: int (*b, h, w), labels of the one pixel: 0 for background, n + 1 for class n; anything above `classes`,
            such as 255, is unsure.
        partner: int (*b, h, w), of the other.
        classes: how many there are.

    Returns:
        PairTargets.

    Source: IRN, voc12/dataloader.py, GetAffinityLabelFromIndices.
    """
    known, same = (source <= classes) & (partner <= classes), source == partner
    return PairTargets(known & same & (source == 0), known & same & (source > 0), known & ~same)


def affinity_loss(edges: jax.Array, labels: jax.Array, paths: tuple[Path, ...], *, classes: int) -> jax.Array:
    """Cross entropy of the affinities; background, foreground and different pairs have fixed shares.

        1/2 (1/2 mean_background -log(a + e) + 1/2 mean_foreground -log(a + e) + mean_different -log(1 + e - a))

    with e = 1e-5, added also to the number of pairs that a mean divides by: a mean of no pairs is 0. Means are over
    the whole batch.

    Args:
        edges: float (*b, h, w), probabilities of an edge in [0, 1].
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above `classes`, such as 255, is unsure.
        paths: of `search_paths`; IRN's have radius 10.
        classes: how many there are.

    Returns:
        float ().

    Source: IRN, step/train_irn.py.
    """
    r = reach(paths)
    source = window(labels, (0, 0), r)

    def measure(direction, along):
        targets = pair_targets(source, window(labels, direction, r), classes=classes)
        a = along(edges)
        losses = -jnp.log(jnp.where(targets.different, 1 + EPSILON - a, a + EPSILON))
        return [_sum(losses, kind) for kind in targets]

    background, foreground, different = _means(over_paths(measure, paths))
    return (background / 2 + foreground / 2 + different) / 2


def displacement_loss(
    displacements: jax.Array, labels: jax.Array, paths: tuple[Path, ...], *, classes: int
) -> jax.Array:
    """Pixels of an object point to the same place, those of the background nowhere in particular.

        1/2 mean_foreground |D(i) - D(j) - (j - i)| + 1/2 mean_background |D(i) - D(j)|

    Means are over the pairs of the whole batch and over rows and columns, with 1e-5 added to their number: a mean of
    no pairs is 0.

    Args:
        displacements: float (*b, h, w, 2), D, in rows and columns.
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above `classes`, such as 255, is unsure.
        paths: of `search_paths`; IRN's have radius 10.
        classes: how many there are.

    Returns:
        float ().

    Source: IRN, step/train_irn.py.
    """
    r = reach(paths)
    fields = jnp.moveaxis(displacements, -1, 0)
    source, source_label = window(fields, (0, 0), r), window(labels, (0, 0), r)

    def measure(direction, _):
        targets = pair_targets(source_label, window(labels, direction, r), classes=classes)
        difference = source - window(fields, direction, r)
        wanted = direction.astype(fields.dtype).reshape(2, *[1] * (fields.ndim - 1))
        elsewhere, on_objects = (jnp.abs(difference - offset).sum(axis=0) for offset in (0, wanted))
        return [_sum(elsewhere, targets.background, 2), _sum(on_objects, targets.foreground, 2)]

    background, foreground = _means(over_paths(measure, paths))
    return (background + foreground) / 2


def _sum(losses, pairs, values=1):
    """The sum of the losses of these pairs, of so many values each, and the number of values."""
    return jnp.where(pairs, losses, 0).sum(), values * pairs.sum()


def _means(sums):
    return [total.sum() / (count.sum() + EPSILON) for total, count in sums]
