"""Maps cut into square pieces, and joined again."""

import jax
import jax.numpy as jnp


def pieces_of(x: jax.Array, side: int, *, before: int = 0) -> jax.Array:
    """Cut maps into square pieces; zeros fill up those at the borders.

    Args:
        x: (b, h, w, d).
        side: rows and columns of a piece.
        before: zero rows and columns that the first pieces have before the map, at the top and at the left.

    Returns:
        (b, ceil((h + before) / side), ceil((w + before) / side), side^2, d): the positions of a piece row by row.
    """
    b, h, w, d = x.shape
    rows, columns = (-(-(length + before) // side) for length in (h, w))
    after = rows * side - h - before, columns * side - w - before
    x = jnp.pad(x, [(0, 0), (before, after[0]), (before, after[1]), (0, 0)])
    return x.reshape(b, rows, side, columns, side, d).swapaxes(2, 3).reshape(b, rows, columns, side**2, d)


def joined(pieces: jax.Array, shape: tuple[int, int], *, before: int = 0) -> jax.Array:
    """The maps (b, h, w, d) of shape (h, w) that were cut into these pieces by `pieces_of`."""
    b, rows, columns, positions, d = pieces.shape
    side = round(positions**0.5)
    x = pieces.reshape(b, rows, columns, side, side, d).swapaxes(2, 3).reshape(b, rows * side, columns * side, d)
    return x[:, before : before + shape[0], before : before + shape[1]]
