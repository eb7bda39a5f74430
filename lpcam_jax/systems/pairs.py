"""Losses on pairs of nearby pixels, from sparse labels: what IRN's edges and psa's features are learned by.

Two pixels with the same sure label should have a high affinity, two with different labels a low one.

Source: Ahn and Kwak, Learning pixel-level semantic affinity with image-level supervision (2018); IRN's is the same.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

EPSILON = 1e-5


class PairTargets(NamedTuple):
    """Relation between the labels of two pixels; a pair with an unsure pixel belongs to none of the three kinds.

    Attributes:
        background: bool (*b, h, w), both pixels are background.
        foreground: bool (*b, h, w), both pixels are of the same class.
        different: bool (*b, h, w), their labels differ.
    """

    background: jax.Array
    foreground: jax.Array
    different: jax.Array


def pair_targets(source: jax.Array, partner: jax.Array, *, classes: int) -> PairTargets:
    """Classify pairs of pixels by their labels.

    Args:
        source: int (*b, h, w), label of the source pixel: 0 for background, n + 1 for class n; anything above
            `classes`, such as 255, is unsure.
        partner: int (*b, h, w), label of its partner.
        classes: number of classes.

    Returns:
        PairTargets.

    Source: IRN, voc12/dataloader.py, GetAffinityLabelFromIndices.
    """
    known, same = (source <= classes) & (partner <= classes), source == partner
    return PairTargets(known & same & (source == 0), known & same & (source > 0), known & ~same)


def cross_entropies(affinities: jax.Array, targets: PairTargets) -> list[tuple[jax.Array, jax.Array]]:
    """Sum over the pairs of each kind of -log(a + e), of different ones -log(1 + e - a), and the number of pairs.

    Args:
        affinities: float (*b, h, w), in [0, 1].
        targets: of the same pairs.

    Returns:
        (sum, count) of background, foreground and different pairs.
    """
    losses = -jnp.log(jnp.where(targets.different, 1 + EPSILON - affinities, affinities + EPSILON))
    return [summed(losses, pairs) for pairs in targets]


def weighted(sums: Sequence[tuple[jax.Array, jax.Array]]) -> jax.Array:
    """1/2 (1/2 mean_background + 1/2 mean_foreground + mean_different) of `cross_entropies`, each with a leading axis.

    1e-5 is added to the number of pairs in each mean, so that a mean over no pairs is 0.
    """
    background, foreground, different = means(sums)
    return (background / 2 + foreground / 2 + different) / 2


def summed(losses: jax.Array, pairs: jax.Array, values: int = 1) -> tuple[jax.Array, jax.Array]:
    """Sum of the losses of these pairs, and their number times `values`, the number of values summed in each loss."""
    return jnp.where(pairs, losses, 0).sum(), values * pairs.sum()


def means(sums: Sequence[tuple[jax.Array, jax.Array]]) -> list[jax.Array]:
    """The means of `summed`, each with a leading axis."""
    # As float32, for all pairs of hundreds of large crops are more than an int32 counts.
    return [total.sum() / (count.astype(jnp.float32).sum() + EPSILON) for total, count in sums]
