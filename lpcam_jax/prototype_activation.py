"""LPCAM: maps from all prototypes of a class instead of the classifier's weights alone (paper, Eq. 5-6).

    FG_n(x) = mean_i cos(f(x), F'_{n,i})       BG_n(x) = mean_j cos(f(x), B'_{n,j})       LPCAM_n = ReLU(FG_n - BG_n)

The cosine is linear in the unit feature, so the means over prototypes collapse into one direction per class:

    FG_n - BG_n = unit(f(x)) . ( mean_i unit(F'_{n,i}) - mean_j unit(B'_{n,j}) )

So LPCAM *is* CAM with other weights on unit features: one 1x1 convolution, which `lpcam` computes. `similarity_maps`
keeps the prototypes apart, in a single einsum, to explain a map part by part.
"""

import jax
import jax.numpy as jnp

from .clustering import inverse_length, unit
from .prototypes import Prototypes

_ROUNDING = 1e-6


@jax.jit
def directions(prototypes: Prototypes) -> jax.Array:
    """direction_n = mean_i unit(F'_{n,i}) - mean_j unit(B'_{n,j}), one per class.

    Args:
        prototypes: of c classes.

    Returns:
        float (c, d), of length at most 2. Without class prototypes, the first mean is 0; without context prototypes,
        nothing is subtracted.

    Source: paper Eq. 5 and 6; the cosine is linear in the unit feature, so the means can come first.
    """

    def mean_unit(centres, mask):
        # A weighted sum of the raw centres avoids a scaled copy of them.
        count = jnp.maximum(mask.sum(axis=1), 1).astype(centres.dtype)
        weights = jnp.where(mask, inverse_length(centres), 0) / count[:, None]
        return jnp.einsum("ckd,ck->cd", centres, weights, precision="highest")

    difference = mean_unit(prototypes.class_centres, prototypes.class_mask) - mean_unit(
        prototypes.context_centres, prototypes.context_mask
    )
    # What is left of two means that are equal is rounding, which the division by a map's maximum would blow up.
    return jnp.where(jnp.linalg.norm(difference, axis=1, keepdims=True) > _ROUNDING, difference, 0)


@jax.jit
def lpcam(features: jax.Array, prototypes: Prototypes | jax.Array) -> jax.Array:
    """LPCAM_n(x) = ReLU( unit(f(x)) . direction_n ).

    Args:
        features: float (*b, h, w, d), of any length; zero features give zero. For a picture and its mirror image, add
            the (mirrored back) features first.
        prototypes: of c classes; or, computed once for many blocks, their `directions`, float (c, d).

    Returns:
        float (*b, h, w, c), in [0, 2], on the feature grid. The ReLU is applied here, before scales are fused.

    Source: paper Eq. 5-6; reference step "make_lpcam" (the code applies the ReLU at each scale, the paper once).
    """
    return jax.nn.relu(evidence(features, prototypes))


@jax.jit
def evidence(features: jax.Array, prototypes: Prototypes | jax.Array) -> jax.Array:
    """LPCAM before its ReLU: above 0 for the class, below 0 for its context.

        unit(f(x)) . direction_n

    Args:
        features: float (*b, h, w, d), of any length; zero features give zero.
        prototypes: of c classes, or their `directions`, float (c, d).

    Returns:
        float (*b, h, w, c), in [-2, 2], on the feature grid.

    Source: paper Eq. 5-6, without the ReLU.
    """
    # Scaling the maps instead of the features, which are many more, saves a copy of the feature block.
    weights = directions(prototypes) if isinstance(prototypes, Prototypes) else prototypes
    return jnp.einsum("...d,cd->...c", features, weights, precision="highest") * inverse_length(features)[..., None]


def without_context(prototypes: Prototypes) -> Prototypes:
    """The same prototypes without context: `lpcam` with them is the paper's LPCAM-F.

    Args:
        prototypes: of c classes.

    Returns:
        Prototypes whose context mask is False everywhere.

    Source: paper Eq. 5, FG_n alone.
    """
    return prototypes._replace(context_mask=jnp.zeros_like(prototypes.context_mask))


@jax.jit
def similarity_maps(features: jax.Array, centres: jax.Array) -> jax.Array:
    """Cosine of every feature with every prototype, a single einsum on unit vectors.

    Args:
        features: float (*b, h, w, d).
        centres: float (c, k, d), of any length; a zero centre or feature gives 0.

    Returns:
        float (*b, h, w, c, k), in [-1, 1].

    Source: paper Eq. 5.
    """
    return jnp.einsum("...hwd,ckd->...hwck", unit(features), unit(centres), precision="highest")
