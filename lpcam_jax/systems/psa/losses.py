"""psa's loss: the affinity of two positions is the probability that their labels are the same."""

import jax

from ...refine.paths import window
from ...refine.similarity import over_directions
from ...seeds import IGNORE
from ..pairs import cross_entropies, pair_targets, weighted


def affinity_loss(features: jax.Array, labels: jax.Array, *, radius: int) -> jax.Array:
    """Cross entropy of the affinities, with fixed weights for background, foreground and different pairs.

        1/4 mean_background -log(a + e) + 1/4 mean_foreground -log(a + e) + 1/2 mean_different -log(1 + e - a)

    with e = 1e-5, which is also added to the number of pairs in each mean. Means are over the whole batch.

    Args:
        features: float (b, h, w, d).
        labels: int (b, h, w), 0 for background, 255 for unsure, any other number for a class of the picture.
        radius: pairs are nearer than this, in positions.

    Returns:
        float ().

    Source: psa, train_aff.py.
    """
    r = radius - 1
    source = window(labels, (0, 0), r)

    def measure(direction, affinities):
        partner = window(labels, direction, r)
        return cross_entropies(affinities, pair_targets(source, partner, classes=IGNORE - 1))

    return weighted(over_directions(measure, features, radius))
