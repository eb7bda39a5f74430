"""What is left out at random in training: values, channels, branches."""

import jax
import jax.numpy as jnp


def dropout(key: jax.Array | None, x: jax.Array, *, rate: float) -> jax.Array:
    """Zero values at random, at this rate, and scale the others so that the mean is preserved.

    Args:
        key: random key; None: return x.
        x: float, of any shape.
        rate: in [0, 1).

    Returns:
        float, of the shape of x.
    """
    if key is None:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def channel_dropout(key: jax.Array | None, x: jax.Array, *, rate: float) -> jax.Array:
    """`dropout` of whole channels of a picture, torch's Dropout2d: x (b, h, w, d), of the same shape and dtype."""
    if key is None:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (len(x), 1, 1, x.shape[-1]))
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


def drop_path(key: jax.Array | None, x: jax.Array, *, rate: float) -> jax.Array:
    """Stochastic depth: zero the output of a branch for whole pictures, and scale the others to preserve the mean.

    Args:
        key: random key; None: return x.
        x: float (b, ...).
        rate: share of the pictures, in [0, 1).

    Returns:
        float, of the shape and dtype of x.
    """
    if key is None or not rate:
        return x
    kept = jax.random.bernoulli(key, 1 - rate, (len(x), *(1,) * (x.ndim - 1)))
    return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))
