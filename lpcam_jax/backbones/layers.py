"""Convolution, pooling, norms and resizing that are exact on padded pictures.

Pictures of many sizes share one shape: padded at the right and bottom to a bucket, along with their true sizes. A
convolution pads with zeros; so as long as everything outside the valid region is zero, the valid region equals that
of the picture alone. Positions outside become non-zero only through batch norm's shift, so `keep_valid` before each
spatial layer is enough. Padding is always explicit and symmetric, as in torch, and the top left corner stays fixed.
The sampling positions of a bilinear resize depend on the valid sizes alone, never on the bucket.

A network of precision bfloat16 computes in float32 what is not a product, but stores in bfloat16 what goes from layer
to layer: a convolution returns its own dtype, everything else the dtype of its input. Parameters stay float32.

All arrays are NHWC. Sizes are int32 (b, 2), valid rows and columns; None means all.
"""

from fractions import Fraction
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from ..machine.devices import convolves_by_products
from .winograd import at_dilation, trainable_winograd, transformed, winograd

Sizes = jax.Array | None
PoolPadding = Literal["symmetric", "ceil", "symmetric_ceil"]
HE_NORMAL = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
# Torch's default, for new layers with few outputs, for which He's (fan out) would be far too large.
TORCH_UNIFORM = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


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


def recomputed(block: nnx.Module, *inputs: Any) -> Any:
    """The output of a block that is computed again for the gradient, instead of storing what is inside."""
    graph, state = nnx.split(block)
    return jax.checkpoint(lambda state, *inputs: nnx.merge(graph, state)(*inputs))(state, *inputs)


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


class Conv(nnx.Module):
    """Convolution with symmetric padding, `dilation * (size // 2)` on every side; its bias, if any, starts at 0.

    Its result is of its dtype; with a bias, which is added in float32, it is float32.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        use_bias: bool = False,
        kernel_init: nnx.Initializer = HE_NORMAL,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.kernel = nnx.Param(kernel_init(rngs.params(), (size, size, inputs, outputs), jnp.float32))
        self.bias = nnx.Param(jnp.zeros(outputs, jnp.float32)) if use_bias else None
        self.size, self.stride, self.dilation, self.dtype = size, stride, dilation, dtype
        self.transformed = False

    def for_inference(self, factor: jax.Array) -> None:
        """Scale the outputs by a factor (outputs,), and transform the kernel to the form that is fastest to apply."""
        kernel = self.kernel[...] * factor.reshape(1, 1, 1, -1)
        self.transformed = convolves_by_products() and self._suits_winograd(128)
        self.kernel = nnx.Param(transformed(kernel) if self.transformed else kernel)

    def _suits_winograd(self, channels: int) -> bool:
        """Whether it is 3x3 in float32, of stride 1, with at least this many channels, so that transforms pay off.

        Dilated more widely, the maps of positions that belong together have fewer of them than a tile.
        """
        is_plain_3x3 = (self.size, self.stride, self.dtype) == (3, 1, jnp.float32) and self.dilation <= 4
        return is_plain_3x3 and min(self.kernel.shape[-2:]) >= channels

    def __call__(self, x: jax.Array, factor: jax.Array | float = 1.0) -> jax.Array:
        """The convolution of x (b, h, w, inputs), times a factor (1, 1, 1, outputs) before the bias."""
        y = self._product(x, self.kernel[...] * factor)
        return y if self.bias is None else y + self.bias[...].reshape(1, 1, 1, -1)

    def _product(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.transformed:
            return at_dilation(winograd, x, kernel, self.dilation)
        # The kernel is transformed at every step, which pays off only for maps that are larger than the kernel.
        if convolves_by_products() and self._suits_winograd(64) and x.shape[1] * x.shape[2] >= self.kernel.shape[2]:
            return at_dilation(trainable_winograd, x, kernel, self.dilation)
        kernel = self._overlapping_taps(kernel, x.shape)
        if kernel.shape[:2] == (1, 1) and convolves_by_products():
            # Twice as fast as XLA's CPU convolution; as matrices, so that the gradient needs no transposed copy.
            x = x[:, :: self.stride, :: self.stride]
            return jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0]).reshape(*x.shape[:3], -1)
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(self.stride, self.stride),
            padding=[(self.dilation * (length // 2),) * 2 for length in kernel.shape[:2]],
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def _overlapping_taps(self, kernel: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The taps that can overlap the map: only the centre, if the map is no larger than the dilation."""
        centre = slice(self.size // 2, self.size // 2 + 1)
        rows, columns = (centre if self.dilation >= length else slice(None) for length in shape[1:3])
        return kernel[rows, columns]


class BatchNorm(nnx.Module):
    """Batch norm, computed in float32, equal to torch's; train mode is an argument of every call.

    In train mode x is normalized with the biased variance of the batch (over n), and the stored variance moves by a
    tenth towards the unbiased one (over n - 1), where n = b * h * w of the global batch. flax's uses the biased one.
    """

    def __init__(self, features: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.mean = nnx.BatchStat(jnp.zeros(features, jnp.float32))
        self.var = nnx.BatchStat(jnp.ones(features, jnp.float32))

    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        dtype, x = x.dtype, x.astype(jnp.float32)
        mean, var = self.mean[...], self.var[...]
        if train:
            n = x[..., 0].size
            batch_mean, batch_var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            # Torch refuses to train on a single position; here its variance is 0.
            self.mean[...] = 0.9 * mean + 0.1 * batch_mean
            self.var[...] = 0.9 * var + 0.1 * (n / max(n - 1, 1)) * batch_var
            mean, var = batch_mean, batch_var
        factor = jax.lax.rsqrt(var + 1e-5) * self.scale[...]
        mean, factor, bias = (values.reshape(1, 1, 1, -1) for values in (mean, factor, self.bias[...]))
        return ((x - mean) * factor + bias).astype(dtype)

    def after(self, conv: Conv, x: jax.Array, *, train: bool) -> jax.Array:
        """The norm of conv(x). Outside train mode the kernel is scaled instead of the outputs, which are many more."""
        if train:
            return self(conv(x), train=True)
        factor, bias = self.factor_and_bias()
        return shifted(conv(x, factor.reshape(1, 1, 1, -1)), bias)

    def factor_and_bias(self) -> tuple[jax.Array, jax.Array]:
        """Factor and bias, float32 (d,) each, of the norm outside train mode, x * factor + bias."""
        factor = jax.lax.rsqrt(self.var[...] + 1e-5) * self.scale[...]
        return factor, self.bias[...] - self.mean[...] * factor


class Shift(nnx.Module):
    """The rest of a batch norm that is folded into its convolution (`folding`): a bias."""

    def __init__(self, bias: jax.Array):
        self.bias = nnx.Param(bias)

    def after(self, conv: Conv, x: jax.Array, *, train: bool) -> jax.Array:
        """conv(x) plus the bias."""
        if train:
            raise ValueError("A network whose batch norm is folded cannot be trained.")
        return shifted(conv(x), self.bias[...])


def shifted(x: jax.Array, bias: jax.Array) -> jax.Array:
    """x (b, h, w, d) plus a bias float32 (d,), added in float32, in the dtype of x."""
    return (x.astype(jnp.float32) + bias.reshape(1, 1, 1, -1)).astype(x.dtype)


class GroupNorm(nnx.Module):
    """Group norm, computed in float32, equal to torch's on each picture's valid region.

        y = (x - mean) / sqrt(variance + 1e-5) * scale + bias

    Mean and biased variance are computed for each picture over the channels of a group and all valid positions. Values
    outside the valid region are ignored, and are not zero afterwards.
    """

    def __init__(self, features: int, groups: int):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.groups = groups

    def __call__(self, x: jax.Array, sizes: Sizes = None) -> jax.Array:
        """The norm of x (b, h, w, d) with valid sizes int32 (b, 2): (b, h, w, d), in the dtype of x."""
        centred = x.astype(jnp.float32)
        centred = centred - self._mean(centred, sizes)
        factor = jax.lax.rsqrt(self._mean(centred**2, sizes) + 1e-5)
        scale, bias = (values[...].reshape(1, 1, 1, -1) for values in (self.scale, self.bias))
        return (centred * (factor * scale) + bias).astype(x.dtype)

    def _mean(self, x: jax.Array, sizes: Sizes) -> jax.Array:
        """The mean of each group, repeated for its channels: (b, 1, 1, d)."""
        b, h, w, d = x.shape
        positions = h * w if sizes is None else sizes.prod(axis=1)[:, None]
        of_channels = keep_valid(x, sizes).sum(axis=(1, 2)) / positions
        of_groups = of_channels.reshape(b, self.groups, -1).mean(axis=-1)
        return jnp.repeat(of_groups, d // self.groups, axis=-1).reshape(b, 1, 1, d)


class Linear(nnx.Linear):
    """A linear layer whose bias has no weight decay."""

    undecayed: ClassVar = ("bias",)


class LayerNorm(nnx.Module):
    """Layer norm over the channels, computed in float32: (x - mean) / sqrt(variance + epsilon) * scale + bias."""

    undecayed: ClassVar = ("scale", "bias")

    def __init__(self, features: int, epsilon: float):
        self.scale = nnx.Param(jnp.ones(features, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(features, jnp.float32))
        self.epsilon = epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """The norm of x (..., d), in the dtype of x."""
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.epsilon)
        scale, bias = (values[...].reshape(*(1,) * (x.ndim - 1), -1) for values in (self.scale, self.bias))
        return (y * scale + bias).astype(x.dtype)


def pooled_sizes(sizes: Sizes, padding: PoolPadding) -> Sizes:
    """Valid sizes after `max_pool`."""
    if sizes is None:
        return None
    return {"symmetric": -(-sizes // 2), "ceil": jnp.maximum(sizes // 2, 1), "symmetric_ceil": sizes // 2 + 1}[padding]


def max_pool(x: jax.Array, sizes: Sizes, *, padding: PoolPadding) -> tuple[jax.Array, Sizes]:
    """3x3 max pool of stride 2 over non-negative, `keep_valid` maps.

    Args:
        x: (b, h, w, d), >= 0 and zero outside the valid region: then zero padding equals torch's minus infinity.
        sizes: int32 (b, 2), or None.
        padding: "symmetric": one on each side (n -> ceil(n / 2)). "ceil": only at the right and bottom
            (n -> floor(n / 2), but 1 -> 1; like Caffe's pool without padding, and torch's with
            `padding=0, ceil_mode=True`, both of which reduce 1 to nothing). "symmetric_ceil": one on each side, and at
            the right and bottom as much as a last window that starts inside needs (n -> floor(n / 2) + 1, like torch's
            with `padding=1, ceil_mode=True`).

    Returns:
        pooled (b, h', w', d) and its valid sizes.
    """
    pads = {
        "symmetric": lambda length: (1, 1),
        "ceil": lambda length: (0, max(3 - length, 1)),
        "symmetric_ceil": lambda length: (1, 2),
    }[padding]
    margins = [pads(length) for length in x.shape[1:3]]
    if convolves_by_products():  # there, XLA's gradient of a pool is ten times as slow
        pooled = _max_of_three(_max_of_three(x, 1, margins[0]), 2, margins[1])
    else:
        pooled = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=margins)
    return pooled, pooled_sizes(sizes, padding)


def _max_of_three(x: jax.Array, axis: int, margins: tuple[int, int]) -> jax.Array:
    """Zero-padded max over three positions along an axis, with stride 2; computed from pairs, without a window."""
    length, (before, after) = x.shape[axis], margins
    count = (length + before + after - 3) // 2 + 1
    padding = [(0, 0)] * x.ndim
    padding[axis] = (before, max(2 * count + 2 - before - length, 0))
    x = jax.lax.slice_in_dim(jnp.pad(x, padding), 0, 2 * count + 2, axis=axis)
    pairs = x.reshape(*x.shape[:axis], count + 1, 2, *x.shape[axis + 1 :])
    first, second = (jax.lax.index_in_dim(pairs, place, axis + 1, keepdims=False) for place in range(2))
    of_pairs = jax.lax.slice_in_dim(jnp.maximum(first, second), 0, count, axis=axis)
    return jnp.maximum(of_pairs, jax.lax.slice_in_dim(first, 1, count + 1, axis=axis))


def resize_valid(x: jax.Array, sizes: Sizes, shape: tuple[int, int], target_sizes: Sizes) -> jax.Array:
    """Bilinear resize of each picture's valid region to a valid region of another size.

    Position i of N samples position (i + 1/2) n / N - 1/2 of n.

    Args:
        x: float (b, h, w, d).
        sizes: int32 (b, 2), its valid sizes n; None: all.
        shape: (H, W) of the returned canvas.
        target_sizes: int32 (b, 2), the valid sizes N there; None if and only if `sizes` is.

    Returns:
        (b, H, W, d), in the dtype of x, zero outside the valid region.

    Source: torch's `interpolate(size=N, mode="bilinear", align_corners=False)` of the picture alone.
    """
    old, new = _all_if_none(sizes, x.shape[1:3]), _all_if_none(target_sizes, shape)
    return keep_valid(_interpolate(x, old, shape, old, new), target_sizes)


def rescale(x: jax.Array, sizes: Sizes, scale: float) -> tuple[jax.Array, Sizes]:
    """Bilinear resize by a factor: position i samples position (i + 1/2) / scale - 1/2, whatever the size.

    Args:
        x: float (b, h, w, d).
        sizes: int32 (b, 2), valid sizes; None: all.
        scale: new over old length; a fraction of small integers, such as 0.75 or 4.

    Returns:
        (b, floor(scale h), floor(scale w), d), in the dtype of x, at least one row and column, zero outside the valid
        region; and its valid sizes.

    Source: torch's `interpolate(scale_factor=scale, mode="bilinear", align_corners=False)`, whose positions depend on
    the factor, not on the ratio of the sizes as with `recompute_scale_factor=True`.
    """
    new, old = Fraction(scale).limit_denominator(1000).as_integer_ratio()
    shape = tuple(max(length * new // old, 1) for length in x.shape[1:3])
    steps = (jnp.full((1, 2), count, jnp.int32) for count in (old, new))
    rescaled = _interpolate(x, _all_if_none(sizes, x.shape[1:3]), shape, *steps)
    sizes = None if sizes is None else jnp.maximum(sizes * new // old, 1)
    return keep_valid(rescaled, sizes), sizes


def _all_if_none(sizes: Sizes, shape: tuple[int, int]) -> jax.Array:
    return jnp.asarray([shape], jnp.int32) if sizes is None else sizes


def _interpolate(x: jax.Array, sizes: jax.Array, shape: tuple[int, int], old: jax.Array, new: jax.Array) -> jax.Array:
    """Sample x at (i + 1/2) old / new - 1/2 along both axes, by two matrix products; old and new: int (b or 1, 2)."""
    _, h, w, _ = x.shape
    down = interpolation_matrix(h, shape[0], sizes[:, 0], old[:, 0], new[:, 0])
    across = interpolation_matrix(w, shape[1], sizes[:, 1], old[:, 1], new[:, 1])
    return _along_both(x, down, across)


def _along_both(x: jax.Array, down: jax.Array, across: jax.Array) -> jax.Array:
    """x (b, h, w, d), weighted by float32 (b or 1, H, h) and (b or 1, W, w): (b, H, W, d)."""
    b, h, w, d = x.shape
    tall = _product(down, x.reshape(b, h, w * d)).reshape(b, down.shape[1], w, d)
    return _product(across[:, None], tall)


def _product(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """Product with a float32 matrix, in full precision, in the dtype of x."""
    return jnp.matmul(matrix, x.astype(jnp.float32), precision="highest").astype(x.dtype)


def interpolation_matrix(source: int, target: int, size: jax.Array, old: jax.Array, new: jax.Array) -> jax.Array:
    """Bilinear weights along one axis: row i holds those of the two neighbours of (i + 1/2) old / new - 1/2.

    Args:
        source: length of the canvas that is sampled.
        target: length of the canvas of samples.
        size: int (b,), valid length of the first; nothing beyond is sampled.
        old: int (b,), of old / new, the step between samples.
        new: int (b,).

    Returns:
        float32 (b, target, source). Positions are computed as integer multiples of 1 / (2 new): in float32 they would
        be off by 1e-5 of a large picture.
    """
    size, old, new = (values[:, None, None] for values in (size, old, new))
    i = jax.lax.broadcasted_iota(jnp.int32, (1, target, 1), 1)
    position = jnp.clip((2 * i + 1) * old - new, 0, 2 * new * (size - 1))
    low, steps = position // (2 * new), position % (2 * new)
    high_weight = steps.astype(jnp.float32) / (2 * new).astype(jnp.float32)
    j = jax.lax.broadcasted_iota(jnp.int32, (1, 1, source), 2)
    return jnp.where(j == low, 1 - high_weight, 0) + jnp.where(j == low + 1, high_weight, 0)


def adaptive_pool(x: jax.Array, sizes: Sizes, bins: int) -> jax.Array:
    """Means over bins x bins windows that cover each picture's valid region.

    Window i of k, along a side of n positions, is from floor(i n / k) up to ceil((i + 1) n / k), exclusive.

    Args:
        x: float (b, h, w, d), finite everywhere.
        sizes: int32 (b, 2), valid sizes n; None: all.
        bins: k, rows and columns of windows.

    Returns:
        (b, bins, bins, d), in the dtype of x.

    Source: torch's `adaptive_avg_pool2d(bins)` of the picture alone.
    """
    valid = _all_if_none(sizes, x.shape[1:3])
    return _along_both(x, *(_means(length, bins, valid[:, axis]) for axis, length in enumerate(x.shape[1:3])))


def _means(source: int, bins: int, size: jax.Array) -> jax.Array:
    """The weights of `adaptive_pool` along an axis of valid length int (b,): float32 (b, bins, source)."""
    size = size[:, None, None]
    i = jax.lax.broadcasted_iota(jnp.int32, (1, bins, 1), 1)
    j = jax.lax.broadcasted_iota(jnp.int32, (1, 1, source), 2)
    start, stop = i * size // bins, -(-(i + 1) * size // bins)
    return jnp.where((j >= start) & (j < stop), 1 / (stop - start).astype(jnp.float32), 0)
