"""The fully connected CRF: nearby pixels of similar colour tend to have the same label.

Mean-field inference. Q_i(l) is the probability of label l at pixel i, U_i(l) its unary energy:

    Q <- softmax( -U + sum_k w_k K~_k Q ),   from Q = softmax(-U)          K~ = D^-1/2 K D^-1/2,   D = K 1

with two kernels, on positions p alone and on positions and colours c:

    K_1 = exp( -|p_i - p_j|^2 / 2 s_1^2 )          K_2 = exp( -|p_i - p_j|^2 / 2 s_2^2 - |c_i - c_j|^2 / 2 s_c^2 )

The first is separable: two small matrix products, exact. The second sums over all pairs of pixels; the permutohedral
lattice approximates it at the cost of a few dozen reads per pixel.

Source: Krähenbühl and Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials (2011).
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .permutohedral import Lattice, Rows, gaussian_sums, lattice_rows, permutohedral_lattice, with_rows

Array = jax.Array | np.ndarray

# Rows and columns of a tile of the N x N kernel.
TILE_ROWS, TILE_COLUMNS = 128, 1024


class CRF(NamedTuple):
    """Two kernels and their weights; sizes are standard deviations, in pixels and in grey levels (0 to 255)."""

    gaussian_size: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_size: float = 50.0
    bilateral_color: float = 5.0
    bilateral_weight: float = 10.0
    iterations: int = 10


CRFS = {
    "irn": CRF(),  # for the labels of IRN, also as used with LPCAM and AMN
    "psa": CRF(bilateral_size=80.0, bilateral_color=13.0),
    "edam": CRF(bilateral_size=80.0, bilateral_color=13.0, iterations=3),
    "deeplabv2": CRF(gaussian_size=1.0, bilateral_size=67.0, bilateral_color=3.0, bilateral_weight=4.0),
    "mctformer": CRF(gaussian_size=4.0, bilateral_size=83.0, bilateral_weight=3.0),
}


def label_unary(labels: Array, n: int, *, certainty: float = 0.7) -> Array:
    """Energies of a seed mask: -log(certainty) for its label, -log((1 - certainty) / (n - 1)) for the others.

    Args:
        labels: int (*b, H, W), from 0 to n - 1; a pixel with any other value, such as 255, prefers no label.
        n: number of labels, background included.
        certainty: probability that the mask is correct, in (0, 1).

    Returns:
        float32 (*b, H, W, n).

    Source: pydensecrf, unary_from_labels.
    """
    xp = labels.__array_namespace__()
    is_label = labels[..., None] == xp.arange(n).reshape(*[1] * labels.ndim, n)
    return xp.where(is_label, -np.log(certainty), -np.log((1 - certainty) / max(n - 1, 1))).astype(np.float32)


def softmax_unary(probabilities: Array) -> Array:
    """Energies of probabilities: -log(p), with p clipped to at least 1e-5.

    Args:
        probabilities: float (*b, H, W, n), in [0, 1].

    Returns:
        float32 (*b, H, W, n).

    Source: pydensecrf, unary_from_softmax.
    """
    xp = probabilities.__array_namespace__()
    return -xp.log(xp.clip(probabilities, 1e-5, 1)).astype(np.float32)


def mean_field(
    image: Array, unary: Array, parameters: CRF = CRFS["irn"], *, size: Array | None = None, exact: bool = False
) -> jax.Array:
    """Probabilities of the labels, Q <- softmax(-U + sum_k w_k K~_k Q).

    It is compiled, for each shape; within another compiled function it becomes a part of that, and is compiled longer.
    New parameters are not compiled anew. So pad pictures at the bottom and right to a few shapes, and labels, with
    infinite energies, to a few counts, best to one more than a power of two: padding has no influence on the result.
    For a batch of pictures use `jax.vmap` on accelerators, which gives all lattices the size of the largest, and
    `jax.lax.map` on CPUs, which needs the memory of one picture.

    Args:
        image: uint8 or float (H, W, 3), colours from 0 to 255.
        unary: float (*u, H, W, n), energies; several for one picture share its lattice. Infinity where a label is
            impossible.
        parameters: one of `CRFS`, or your own.
        size: int (2,), rows and columns of the picture, at most H and W; the rest of the image and of the energies is
            padding. None: all.
        exact: sum over all pairs of pixels, at a cost of N^2 per iteration instead of N. The default, the lattice,
            gives 99.9 % of the labels of pydensecrf, which uses a lattice too; benchmarks/crf.py measures this.

    Returns:
        float32 (*u, H, W, n), summing to 1; undefined in the padding. The computation needs at most 0.85 KB per pixel;
        with more than 8 labels of all unaries together, 0.35 KB per pixel plus 65 bytes per pixel and label. So
        1024 x 1024 pixels take 0.9 GB with 3 labels, 1.8 GB with 21: within another compiled function always, else
        only if hardly two pixels look the same, and usually half as much. The exact sum takes 150 bytes per pixel plus
        20 per label.

    Raises:
        ValueError: the shapes of image and energies do not match.

    Source: pydensecrf, DenseCRF2D with its default, the symmetric normalization.
    """
    height, width = unary.shape[-3:-1]
    if image.shape != (height, width, 3):
        raise ValueError(f"image {image.shape} and energies {unary.shape} must be (H, W, 3) and (*u, H, W, n)")
    size = jnp.array([height, width]) if size is None else size
    if exact:
        return _with_all_pairs(image, unary, parameters, size)
    lattice = bilateral_lattice(image, parameters, size)
    if isinstance(lattice.needed, jax.core.Tracer):
        return with_rows(lattice, lambda rows: _on_lattice(rows, unary, parameters, size))
    # The number of corners is known, so one program is compiled instead of one for each capacity.
    capacity = next(capacity for capacity in lattice.capacities if capacity >= lattice.needed)
    return _on_lattice(lattice_rows(lattice, capacity), unary, parameters, size)


@jax.jit
def bilateral_lattice(image: Array, parameters: CRF, size: Array) -> Lattice:
    """The lattice of the pixels' places and colours, which takes as long as a few iterations.

    Args:
        image: uint8 or float (H, W, 3), colours from 0 to 255.
        parameters: sizes of the second kernel.
        size: int (2,), rows and columns of the picture in the image.
    """
    return permutohedral_lattice(*_points(image, parameters, size))


@jax.jit
def _on_lattice(rows: Rows, unary: Array, parameters: CRF, size: Array) -> jax.Array:
    return _solution(partial(gaussian_sums, rows), _exists(unary.shape[-3:-1], size), unary, parameters)


@jax.jit
def _with_all_pairs(image: Array, unary: Array, parameters: CRF, size: Array) -> jax.Array:
    sums = partial(_all_pairs, *_points(image, parameters, size))
    return _solution(sums, _exists(unary.shape[-3:-1], size), unary, parameters)


def _exists(shape: tuple[int, int], size: Array) -> tuple[jax.Array, jax.Array]:
    """Which rows bool (H,) and columns bool (W,) are of the picture."""
    return tuple(jnp.arange(length) < valid for length, valid in zip(shape, size, strict=True))


def _points(image: Array, parameters: CRF, size: Array) -> tuple[jax.Array, jax.Array]:
    """Places and colours in standard deviations float32 (H W, 5), and which exist bool (H W,)."""
    height, width, _ = image.shape
    rows, columns = _exists((height, width), size)
    places = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), axis=-1).reshape(-1, 2)
    colors = jnp.asarray(image, jnp.float32).reshape(-1, 3)
    points = jnp.concatenate([places / parameters.bilateral_size, colors / parameters.bilateral_color], axis=1)
    return points.astype(jnp.float32), (rows[:, None] & columns[None]).reshape(-1)


def _solution(
    sums: Callable, rows_and_columns: tuple[jax.Array, jax.Array], unary: Array, parameters: CRF
) -> jax.Array:
    """The probabilities, with the Gaussian sums over places and colours by `sums`, values (H W, c) -> (H W, c)."""
    *several, height, width, n = unary.shape
    exists = rows_and_columns[0][:, None] & rows_and_columns[1][None]
    down, across = (_line_kernel(line, parameters.gaussian_size) for line in rows_and_columns)

    def gaussian(maps):
        return jnp.matmul(jnp.matmul(down, maps, precision="highest"), across, precision="highest")

    def bilateral(maps):
        return sums(maps.reshape(-1, height * width).T).T.reshape(maps.shape)

    # Labels first: an operation along a short last axis would take longer than everything else.
    energies = jnp.moveaxis(jnp.asarray(unary, jnp.float32), -1, 0).reshape(n, -1, height, width)
    energies = jnp.where(exists[None, None], energies, 0)
    kernels = _normalized(gaussian, exists), _normalized(bilateral, exists)
    weights = parameters.gaussian_weight, parameters.bilateral_weight

    def messages(maps):
        return sum(weight * kernel(maps) for weight, kernel in zip(weights, kernels, strict=True))

    # Sums over labels are written out, since XLA's reductions over a leading axis are slow on CPUs.
    def distribution(messages):
        scores = messages - energies
        shares = jnp.exp(scores - reduce(jnp.maximum, scores)[None])
        return shares / sum(shares)[None]

    # Probabilities sum to 1, so the messages of the last label are what the others leave of those of all.
    all_labels = jnp.broadcast_to(messages(jnp.ones((1, height, width), jnp.float32)), energies.shape[1:])

    def iterate(_, q):
        others = messages(q[:-1].reshape(-1, height, width)).reshape(q[:-1].shape)
        return distribution(jnp.concatenate([others, reduce(jnp.subtract, others, all_labels)[None]]))

    q = jax.lax.fori_loop(0, parameters.iterations, iterate, distribution(0))
    return jnp.moveaxis(q.reshape(n, *several, height, width), 0, -1)


def _normalized(kernel: Callable[[jax.Array], jax.Array], exists: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """D^-1/2 K D^-1/2 for a kernel that is applied to maps (c, H, W); pixels that do not exist send and receive 0."""
    total = kernel(jnp.ones_like(exists, jnp.float32)[None])
    scale = jnp.where(exists[None], 1 / jnp.sqrt(total + 1e-20), 0)
    return lambda maps: scale * kernel(scale * maps)


def _line_kernel(exists: jax.Array, deviation: float) -> jax.Array:
    """exp(-(i - j)^2 / 2 s^2) between the positions on a line: (n,) -> (n, n)."""
    place = jnp.arange(exists.size, dtype=jnp.float32) / deviation
    kernel = jnp.exp(-jnp.square(place[:, None] - place[None]) / 2)
    return jnp.where(exists[:, None] & exists[None], kernel, 0)


def _all_pairs(points: jax.Array, exists: jax.Array, values: jax.Array) -> jax.Array:
    """sum_j exp(-|p_i - p_j|^2 / 2) v_j, one tile of the kernel at a time: (N, d), (N,), (N, c) -> (N, c)."""
    count = len(points)
    centre = jnp.sum(jnp.where(exists[:, None], points, 0), axis=0, keepdims=True) / exists.sum()
    centred = jnp.where(exists[:, None], points - centre, 0)
    # The exponent as a single matrix product: p_i . p_j - |p_i|^2 / 2 - |p_j|^2 / 2.
    half, ones = -jnp.square(centred).sum(axis=1, keepdims=True) / 2, jnp.ones((count, 1), jnp.float32)
    values = jnp.where(exists[:, None], values, 0)

    def tiles(array, size):
        padded = jnp.pad(array, ((0, -count % TILE_COLUMNS), (0, 0)))
        return padded.reshape(len(padded) // size, size, array.shape[1])

    columns = tiles(jnp.concatenate([centred, half, ones], axis=1), TILE_COLUMNS), tiles(values, TILE_COLUMNS)

    def sums(row):
        def add(total, column):
            points, values = column
            exponent = jnp.einsum("id,jd->ij", row, points, precision="highest")
            kernel = jnp.exp(jnp.minimum(exponent, 0))
            return total + jnp.matmul(kernel, values, precision="highest"), None

        return jax.lax.scan(add, jnp.zeros((TILE_ROWS, values.shape[1]), jnp.float32), columns)[0]

    rows = tiles(jnp.concatenate([centred, ones, half], axis=1), TILE_ROWS)
    return jax.lax.map(sums, rows).reshape(rows.shape[0] * TILE_ROWS, values.shape[1])[:count]
