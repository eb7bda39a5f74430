"""3x3 convolution of stride 1 with a quarter of the multiplications: Winograd's F(4x4, 3x3), as matrix products.

    y = A' [ (G k G') . (B' x B) ] A       for each tile x of 6x6 positions and its 4x4 outputs y

The products in the middle are matrix products of (tiles, inputs) with (inputs, outputs), one for each of the 36
positions of a transformed tile. The transforms are matrix products too: of a 36x36, a 16x36 and a 36x9 matrix with
tiles laid out by position.

Source: Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (CVPR 2016).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_B = np.float32(
    [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
     [0, 4, 0, -5, 0, 1]]
)  # fmt: skip
_G = np.float32([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / np.float32(24)
_A = np.float32([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])
_INPUT, _KERNEL, _OUTPUT = (np.kron(matrix, matrix) for matrix in (_B, _G, _A))


def transformed(kernel: jax.Array) -> jax.Array:
    """Transform a kernel for `winograd`: (3, 3, inputs, outputs) -> (36, inputs, outputs)."""
    return _product(_KERNEL, kernel.reshape(9, -1)).reshape(36, *kernel.shape[2:])


def winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The convolution with zero padding.

    Args:
        x: float32 (b, h, w, inputs).
        kernel: float32 (36, inputs, outputs), from `transformed`.

    Returns:
        float32 (b, h, w, outputs); it differs from the plain convolution by rounding, about 1e-5 of the largest value.
    """
    products = jnp.matmul(_tiles(x), kernel, precision="highest")
    return _untiled(_product(_OUTPUT, products.reshape(36, -1)), (*x.shape[:3], kernel.shape[-1]))


@jax.custom_vjp
def trainable_winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`winograd` of a plain kernel (3, 3, inputs, outputs); its gradients are computed in the same way."""
    return winograd(x, transformed(kernel))


def _forward(x, kernel):
    return trainable_winograd(x, kernel), (x, kernel)


def _backward(saved, gradient):
    x, kernel = saved
    of_x = winograd(gradient, transformed(kernel[::-1, ::-1].swapaxes(2, 3)))
    of_products = _product(_OUTPUT.T, _places(gradient, 4)).reshape(36, -1, gradient.shape[-1])
    of_transformed = jnp.einsum("npi,npo->nio", _tiles(x), of_products, precision="highest")
    return of_x, _product(_KERNEL.T, of_transformed.reshape(36, -1)).reshape(kernel.shape)


trainable_winograd.defvjp(_forward, _backward)


def at_dilation(
    convolve: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array, kernel: jax.Array, dilation: int
) -> jax.Array:
    """Apply a convolution with a dilated kernel: positions that are `dilation` apart are a map of their own.

    Args:
        convolve: `winograd` or `trainable_winograd`.
        x: float32 (b, h, w, inputs).
        kernel: as `convolve` takes it.
        dilation: r.

    Returns:
        float32 (b, h, w, outputs).
    """
    if dilation == 1:
        return convolve(x, kernel)
    (b, h, w, _), r = x.shape, dilation
    x = jnp.pad(x, ((0, 0), (0, -h % r), (0, -w % r), (0, 0)))
    rows, columns = x.shape[1] // r, x.shape[2] // r
    maps = x.reshape(b, rows, r, columns, r, -1).transpose(2, 4, 0, 1, 3, 5).reshape(-1, rows, columns, x.shape[-1])
    y = convolve(maps, kernel).reshape(r, r, b, rows, columns, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(b, rows * r, columns * r, -1)[:, :h, :w]


def _product(matrix: np.ndarray, x: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, x, precision="highest")


def _tiles(x: jax.Array) -> jax.Array:
    """Transformed tiles of the input, which overlap by two positions: (b, h, w, d) -> (36, b * tiles, d)."""
    return _product(_INPUT, _places(x, 6, before=1)).reshape(36, -1, x.shape[-1])


def _places(x: jax.Array, size: int, *, before: int = 0) -> jax.Array:
    """Every fourth position from each of the first size * size: (b, h, w, d) -> (size * size, b * tiles * d).

    The map is padded by `before` zeros at the top and left, and at the bottom and right as the last tile needs.
    """
    rows, columns = (-(-length // 4) for length in x.shape[1:3])
    down, across = (size - 4 - before + -length % 4 for length in x.shape[1:3])
    x = jnp.pad(x, ((0, 0), (before, down), (before, across), (0, 0)))
    places = [
        x[:, row : row + 4 * rows - 3 : 4, column : column + 4 * columns - 3 : 4]
        for row in range(size)
        for column in range(size)
    ]
    return jnp.stack(places).reshape(size * size, -1)


def _untiled(places: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Assemble disjoint tiles, cropped to the map: (16, b * tiles * d) -> (b, h, w, d) = shape."""
    b, h, w, d = shape
    rows, columns = -(-h // 4), -(-w // 4)
    tiles = places.reshape(4, 4, b, rows, columns, d).transpose(2, 3, 0, 4, 1, 5)
    return tiles.reshape(b, 4 * rows, 4 * columns, d)[:, :h, :w]
