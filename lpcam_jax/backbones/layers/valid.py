"""Valid sizes of padded pictures, and zeros outside them."""

import jax
import jax.numpy as jnp

Sizes = jax.Array | None


def strided(sizes: Sizes, stride: int) -> Sizes:
    """Valid sizes after a symmetric layer of this stride: ceil(size / stride)."""
    return None if sizes is None else -(-sizes // stride)


def keep_valid(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Zero everything outside the valid region.

    Args:
        x: (b, h, w, d).
        sizes: int32 (b, 2), or None: all valid.

    Returns:
        (b, h, w, d).
    """
    if sizes is None:
        return x
    rows = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 1)
    columns = jax.lax.broadcasted_iota(jnp.int32, (1, *x.shape[1:3], 1), 2)
    height, width = (sizes[:, axis].reshape(-1, 1, 1, 1) for axis in range(2))
    return jnp.where((rows < height) & (columns < width), x, jnp.zeros((), x.dtype))
