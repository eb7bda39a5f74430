"""IRN's losses, which learn edges and displacements from sparse labels.

Two nearby pixels with the same confident label should have no edge between them, two with different labels should have
one; and displacements, which point to the centre of a pixel's object, should differ by the offset of the pixels. The
labels are `seeds.ir_labels` of two masks, at the size of the grid; the loss is `affinity_loss` + `displacement_loss`.

Source: Ahn, Cho and Kwak, Weakly supervised learning of instance segmentation with inter-pixel relations (2019).
"""

import jax
import jax.numpy as jnp

from ...refine.paths import Path, over_paths, reach, window
from ..pairs import cross_entropies, means, pair_targets, summed, weighted


def affinity_loss(edges: jax.Array, labels: jax.Array, paths: tuple[Path, ...], *, classes: int) -> jax.Array:
    """Cross entropy of the affinities, with fixed weights for background, foreground and different pairs.

        1/2 (1/2 mean_background -log(a + e) + 1/2 mean_foreground -log(a + e) + mean_different -log(1 + e - a))

    with e = 1e-5, which is also added to the number of pairs in each mean, so that a mean over no pairs is 0. Means
    are over the whole batch.

    Args:
        edges: float (*b, h, w), probabilities of an edge in [0, 1].
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above `classes`, such as 255, is unsure.
        paths: from `search_paths`; IRN's have radius 10.
        classes: number of classes.

    Returns:
        float ().

    Source: IRN, step/train_irn.py.
    """
    r = reach(paths)
    source = window(labels, (0, 0), r)

    def measure(direction, along):
        targets = pair_targets(source, window(labels, direction, r), classes=classes)
        return cross_entropies(along(edges), targets)

    return weighted(over_paths(measure, paths))


def displacement_loss(
    displacements: jax.Array, labels: jax.Array, paths: tuple[Path, ...], *, classes: int
) -> jax.Array:
    """L1 loss: the displacements of an object's pixels point to one place, those of the background are equal.

        1/2 mean_foreground |D(i) - D(j) - (j - i)| + 1/2 mean_background |D(i) - D(j)|

    Means are over the pairs of the whole batch and over rows and columns, with 1e-5 added to their number, so that a
    mean over no pairs is 0.

    Args:
        displacements: float (*b, h, w, 2), D, in rows and columns.
        labels: int (*b, h, w), 0 for background, n + 1 for class n; anything above `classes`, such as 255, is unsure.
        paths: from `search_paths`; IRN's have radius 10.
        classes: number of classes.

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
        target = direction.astype(fields.dtype).reshape(2, *[1] * (fields.ndim - 1))
        background, foreground = (jnp.abs(difference - offset).sum(axis=0) for offset in (0, target))
        return [summed(background, targets.background, 2), summed(foreground, targets.foreground, 2)]

    background, foreground = means(over_paths(measure, paths))
    return (background + foreground) / 2
