"""Prototypes: the cluster centres that the classifier confirms (paper, Eq. 3-4).

A centre is scored as if it were a picture's mean feature, by a softmax over classes:

    p_n(c) = exp(w_n . c) / sum_m exp(w_m . c)

    F'_n = { centres of F_n with p_n > mu_f }            class prototypes: head, leg, body
    B'_n = { centres of B_n with low < p_n < mu_b }      context prototypes: grass, rail

With one or two classes a softmax has little or nothing to compare with. There a centre is compared with the best one of
F_n (`own_scores`): those above half of it are class prototypes, those of B_n below half context prototypes.

The score depends on the centre's length: unit centres would score about 1/c everywhere, and none would pass. So the raw
means of the clusters are scored and kept; the cosine used later ignores length.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

ENOUGH_CLASSES = 3  # classes to compare with each other, as the paper does
BOUNDS_OF_FEW = 0.5, (-1.0, 0.5)  # of the scores of fewer, in place of mu_f and (low, mu_b)


class Prototypes(NamedTuple):
    """The prototypes of all classes; masks instead of lists make it one pytree of static shapes.

    Attributes:
        class_centres: float (c, k, d).
        class_mask: bool (c, k), which of them are prototypes.
        context_centres: float (c, k', d).
        context_mask: bool (c, k').
        taught: float (c, d), one direction per class, learned from refined seeds (`teaching`); None: not taught.
    """

    class_centres: jax.Array
    class_mask: jax.Array
    context_centres: jax.Array
    context_mask: jax.Array
    taught: jax.Array | None = None


@jax.jit
def class_scores(centres: jax.Array, weights: jax.Array, *, bias: jax.Array | None = None) -> jax.Array:
    """Probability of each class for each centre: softmax over classes of centre . w (+ bias).

    Args:
        centres: float (*k, d), raw means in the units of the features.
        weights: float (d, c), the classifier's head.
        bias: float (c,), of a head that has one; None: there is none.

    Returns:
        float (*k, c), in [0, 1], summing to 1 over the classes; of a single class always 1.

    Source: reference step "make_lpcam". (Eq. 3 as printed normalizes over the centres.)
    """
    return jax.nn.softmax(_logits(centres, weights, bias), axis=-1)


@jax.jit
def own_scores(
    centres: jax.Array, class_centres: jax.Array, weights: jax.Array, *, bias: jax.Array | None = None
) -> jax.Array:
    """Score of each centre of class n, or of its context, by class n: p_n of `class_scores`.

    A softmax compares a class with all others. One or two are not enough for that: one has no other, and where every
    picture has one of two, the classifier may take the background for either, which then passes for it. There a centre
    is compared with the class's best one instead, as CAM is with its maximum:

        p_n(c) = w_n . c / max_j w_n . c_j          c_j of F_n; clipped to [0, 1]

    Args:
        centres: float (c, k, d), of F_n or of B_n.
        class_centres: float (c, k', d), of F_n.
        weights: float (d, c), the classifier's head.
        bias: float (c,), of a head that has one, added to every w . c; None: there is none.

    Returns:
        float (c, k), in [0, 1].

    Raises:
        ValueError: centres and head are of different numbers of classes.

    Source: reference step "make_lpcam"; for one or two classes ours (measured in docs/your_own_pictures.md).
    """
    for given in (centres, class_centres):
        if given.shape[0] != weights.shape[1]:
            raise ValueError(
                f"centres {given.shape} are of {given.shape[0]} classes, the head {weights.shape} of "
                f"{weights.shape[1]}; give the centres of all classes of the head, in its order"
            )
    if weights.shape[1] >= ENOUGH_CLASSES:
        return _of_own_class(class_scores(centres, weights, bias=bias))
    logits, of_class = (_of_own_class(_logits(points, weights, bias)) for points in (centres, class_centres))
    top = jnp.where(_exists(class_centres), of_class, -jnp.inf).max(axis=1, keepdims=True)
    return jnp.clip(jnp.where(top > 0, logits / jnp.where(top > 0, top, 1), 0), 0, 1)


@jax.jit
def select_prototypes(
    class_centres: jax.Array,
    context_centres: jax.Array,
    weights: jax.Array,
    *,
    bias: jax.Array | None = None,
    mu_f: float = 0.9,
    context: tuple[float, float] = (0.05, 0.9),
) -> Prototypes:
    """Keep the centres whose scores (`own_scores`) pass the thresholds.

    A zero centre (an empty cluster) is never kept. A class without a passing centre keeps its best-scoring one, and
    those within 1e-6 of it. A context without one keeps none: then nothing is subtracted.

    Args:
        class_centres: float (c, k, d), raw means of the clusters of F_n.
        context_centres: float (c, k', d), of B_n.
        weights: float (d, c), the classifier's head.
        bias: float (c,), of a head that has one; None: there is none.
        mu_f: class prototypes score above this; with one or two classes, above 1/2 instead.
        context: (low, mu_b), context prototypes score strictly between; with one or two classes, below 1/2 instead.

    Returns:
        Prototypes.

    Raises:
        ValueError: centres and head are of different numbers of classes.

    Source: paper Eq. 3-4; reference step "make_lpcam" (the lower bound is only in the code, the fallback only in the
    code for COCO).
    """
    score = jnp.where(_exists(class_centres), own_scores(class_centres, class_centres, weights, bias=bias), -1)
    context_score = own_scores(context_centres, class_centres, weights, bias=bias)
    mu_f, (low, mu_b) = (mu_f, context) if weights.shape[1] >= ENOUGH_CLASSES else BOUNDS_OF_FEW
    passed, is_context = score > mu_f, (context_score > low) & (context_score < mu_b)
    best = (score >= score.max(axis=1, keepdims=True) - 1e-6) & (score >= 0)
    class_mask = jnp.where(passed.any(axis=1, keepdims=True), passed, best)
    context_mask = _exists(context_centres) & is_context
    return Prototypes(class_centres, class_mask, context_centres, context_mask)


def _logits(centres, weights, bias):
    products = jnp.einsum("...d,dc->...c", centres, weights, precision="highest")
    return products if bias is None else products + bias.reshape(*[1] * (products.ndim - 1), -1)


def _of_own_class(values):
    """(c, k, c) -> (c, k): the values of class n at the centres of class n."""
    return jnp.diagonal(values, axis1=0, axis2=2).T


def _exists(centres):
    return jnp.any(centres != 0, axis=-1)
