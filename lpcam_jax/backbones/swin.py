"""Swin transformer of any size: attention within windows, which every other block shifts.

    picture -> patches, norm -> stage1 -> merge, stage2 -> merge, stage3 -> merge, stage4 -> norm
                      /4         /4             /8              /16             /32

    x = x + attention(norm1(x))          x = x + fc2(gelu(fc1(norm2(x))))
    attention = softmax(query . key / sqrt(d) + B) . value          B_ij: learned, of the position of i relative to j

The paper pads a map to P, the next multiple of the window M, and shifts by rolling it by s: its end meets its beginning
in the last windows, where a mask keeps them apart. So each of the two parts is a window of its own. Here it is one: the
first windows of a shifted block begin M - s positions before the map, nothing is rolled, and attended to is what lies
between 0 and P. P is that of each picture, whatever its canvas; windows, merged positions and patches start at the top
left; and zero is what is outside a picture before each of them. So it is the picture alone, on any canvas.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ..config.numbers import Count, Limit, Share
from ..machine.errors import UserError
from .config import BackboneConfig
from .layers.convolution import Linear
from .layers.drops import drop_path
from .layers.norms import LayerNorm
from .layers.pieces import joined, pieces_of
from .layers.recomputation import recomputed
from .layers.valid import Sizes, keep_valid, strided

if TYPE_CHECKING:
    from pathlib import Path

    from .weights.fill import Loaded

PATCH = 4
STAGES = ("stage1", "stage2", "stage3", "stage4")
_EPSILON = 1e-5
_WEIGHTS = nnx.initializers.truncated_normal(0.02)
_FOUR = Limit(lambda value: len(value) == len(STAGES) and min(value) >= 1, "give the blocks of four stages, at least 1")


@dataclass(frozen=True, kw_only=True)
class SwinConfig(BackboneConfig):
    """A Swin transformer. The defaults are Swin-S's; docs/backbones.md has the flags of others."""

    backbone: Literal["swin"] = "swin"
    dim: Count = 96
    """channels of stage 1: 96 of Swin-T and S, 128 of B, 192 of L; each stage doubles them"""
    depths: Annotated[tuple[int, ...], _FOUR] = (2, 2, 18, 2)
    """blocks of the stages: 2 2 6 2 of Swin-T, 2 2 18 2 of S, B and L"""
    head_dim: Count = 32
    """channels of an attention head"""
    mlp_ratio: Count = 4
    """channels between the two layers of a block, over those of its stage"""
    window: Count = 7
    """rows and columns of a window: 7, or 12 where it was trained on pictures of 384 pixels"""
    stage_norms: bool = False
    """whether the features of every stage have a norm, as in UperNet, or those of the last only"""
    drop_path: Share = 0.0
    """stochastic depth: share of the training pictures that skip the last branch; it grows linearly from 0"""
    remat: bool = False
    """whether blocks are computed again for the gradient instead of stored: training takes less memory and a third more
    time"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the products and of what is stored between layers; parameters, norms, softmax and the head stay
    float32"""

    example_weights: ClassVar[str] = "hf:timm/swin_small_patch4_window7_224.ms_in1k"
    fixed: ClassVar[tuple[str, ...]] = (
        *("dim", "depths", "head_dim", "mlp_ratio", "window"),
        *BackboneConfig.fixed,
    )
    optional: ClassVar[tuple[tuple[str, str], ...]] = tuple((stage, "norm") for stage in STAGES[:-1])

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: nnx.Rngs) -> "Swin":
        """Build the network, randomly initialized; nothing in it is dilated.

        Raises:
            UserError: the heads do not divide the channels.
        """
        if self.dim % self.head_dim:
            raise UserError(f"--model.dim {self.dim} is no multiple of --model.head-dim {self.head_dim}; change one.")
        return Swin(
            dim=self.dim,
            depths=self.depths,
            head_dim=self.head_dim,
            mlp_ratio=self.mlp_ratio,
            window=self.window,
            stage_norms=self.stage_norms,
            drop_path=self.drop_path,
            remat=self.remat,
            dtype=jnp.dtype(self.precision),
            rngs=rngs,
        )

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load a file with the names of Microsoft, timm, transformers or mmsegmentation (`load_swin`)."""
        from .weights.swin import load_swin

        return load_swin(path, network, self)

    def flags(self) -> str:
        """The flags for everything that parameters depend on."""
        from .weights.swin import Architecture

        return f"--model.backbone swin {Architecture.of(self).flags()}"


class Embedding(nnx.Module):
    """Patches of a picture, and their norm."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.patches = Linear(3 * PATCH**2, dim, kernel_init=_WEIGHTS, dtype=dtype, rngs=rngs)
        self.norm = LayerNorm(dim, _EPSILON)
        self.dtype = dtype

    def __call__(self, images: jax.Array) -> jax.Array:
        """Pictures (b, h, w, 3) -> (b, h', w', dim), of dtype."""
        return self.norm(self.patches(_flat(pieces_of(images, PATCH)).astype(self.dtype)))


class Merge(nnx.Module):
    """Four neighbours become one: of d channels each, 2 d together."""

    def __init__(self, inputs: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.norm = LayerNorm(4 * inputs, _EPSILON)
        self.reduction = Linear(4 * inputs, 2 * inputs, use_bias=False, kernel_init=_WEIGHTS, dtype=dtype, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x (b, h, w, d), zero outside the valid region -> (b, ceil(h / 2), ceil(w / 2), 2 d)."""
        return self.reduction(self.norm(_flat(pieces_of(x, 2))))


def _flat(pieces: jax.Array) -> jax.Array:
    """Pieces (b, h, w, n, d) as positions (b, h, w, n d)."""
    return pieces.reshape(*pieces.shape[:3], -1)


class Attention(nnx.Module):
    """Attention within windows, of several heads."""

    undecayed: ClassVar = ("positions",)

    def __init__(self, dim: int, *, head_dim: int, window: int, shift: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.qkv = Linear(dim, 3 * dim, kernel_init=_WEIGHTS, dtype=dtype, rngs=rngs)
        self.proj = Linear(dim, dim, kernel_init=_WEIGHTS, dtype=dtype, rngs=rngs)
        # Of every relative position, rows before columns, for every head.
        self.positions = nnx.Param(_WEIGHTS(rngs.params(), ((2 * window - 1) ** 2, dim // head_dim), jnp.float32))
        self.head_dim, self.window, self.before, self.dtype = head_dim, window, -shift % window, dtype

    def __call__(self, x: jax.Array, sizes: Sizes) -> jax.Array:
        """x (b, h, w, d), zero outside the valid sizes int32 (b, 2) -> (b, h, w, d), of the same dtype."""
        b, h, w, dim = x.shape
        # The bias is added after cutting: the zeros that fill up windows get it, too, and cost no product.
        product = jnp.matmul(x, self.qkv.kernel[...].astype(self.dtype))
        pieces = pieces_of(product, self.window, before=self.before)
        _, rows, columns, positions, _ = pieces.shape
        qkv = pieces + self.qkv.bias[...].astype(self.dtype).reshape(1, 1, 1, 1, -1)
        qkv = qkv.reshape(-1, positions, 3, dim // self.head_dim, self.head_dim).transpose(2, 0, 3, 1, 4)
        query, key, value = qkv  # each (windows, heads, positions, d)
        logits = jnp.matmul(query * self.head_dim**-0.5, key.swapaxes(2, 3)).astype(jnp.float32) + self._bias()[None]
        if self.before:
            attended = self._attended(sizes, (h, w), (rows, columns))
            attended = jnp.broadcast_to(attended, (b, rows, columns, positions)).reshape(-1, 1, 1, positions)
            logits = jnp.where(attended, logits, jnp.finfo(jnp.float32).min)
        y = jnp.matmul(jax.nn.softmax(logits).astype(value.dtype), value)
        y = y.swapaxes(1, 2).reshape(b, rows, columns, positions, dim)
        return self.proj(joined(y, (h, w), before=self.before))

    def _bias(self) -> jax.Array:
        """B, float32 (heads, M^2, M^2)."""
        return self.positions[...][relative_positions(self.window)].transpose(2, 0, 1)

    def _attended(self, sizes: Sizes, shape: tuple[int, int], counts: tuple[int, int]) -> jax.Array:
        """Which positions of the windows are between 0 and P: bool (b or 1, rows, columns, M^2)."""
        sizes = jnp.asarray([shape], jnp.int32) if sizes is None else sizes
        along = []
        for axis, count in enumerate(counts):
            place = jnp.arange(count * self.window, dtype=jnp.int32)[None] - self.before
            padded = strided(sizes[:, axis : axis + 1], self.window) * self.window
            along.append(((place >= 0) & (place < padded)).reshape(-1, count, self.window))
        down, across = along
        both = down[:, :, None, :, None] & across[:, None, :, None, :]
        return both.reshape(*both.shape[:3], -1)


def relative_positions(window: int) -> np.ndarray:
    """Where the position of i relative to j is in a table of all: int (M^2, M^2) for i, j in a window of M x M."""
    places = np.stack(np.divmod(np.arange(window**2), window), axis=-1)
    rows, columns = np.moveaxis(places[:, None] - places[None] + window - 1, -1, 0)
    return rows * (2 * window - 1) + columns


class Block(nnx.Module):
    """Attention within windows, then two layers at each position; both are added to their input."""

    def __init__(
        self,
        dim: int,
        *,
        head_dim: int,
        mlp_ratio: int,
        window: int,
        shift: int,
        drop_path: float,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        options = {"kernel_init": _WEIGHTS, "dtype": dtype, "rngs": rngs}
        self.norm1, self.norm2 = LayerNorm(dim, _EPSILON), LayerNorm(dim, _EPSILON)
        self.attention = Attention(dim, head_dim=head_dim, window=window, shift=shift, dtype=dtype, rngs=rngs)
        self.fc1, self.fc2 = Linear(dim, mlp_ratio * dim, **options), Linear(mlp_ratio * dim, dim, **options)
        self.drop_path = drop_path

    def __call__(self, x: jax.Array, sizes: Sizes, key: jax.Array | None) -> jax.Array:
        """x (b, h, w, dim), of dtype; what is outside its valid region is of no meaning, before and afterwards."""
        first, second = (None, None) if key is None else jax.random.split(key)
        y = self.attention(keep_valid(self.norm1(x), sizes), sizes)
        x = x + drop_path(first, y, rate=self.drop_path)
        y = self.fc2(jax.nn.gelu(self.fc1(self.norm2(x)), approximate=False))
        return x + drop_path(second, y, rate=self.drop_path)


class Stage(nnx.Module):
    """Blocks one after the other, all but those of the first stage on merged positions; and maybe a norm.

    Args:
        dim: channels.
        merge: what merges positions before the blocks; None: nothing.
        norm: of what the network returns; None: none.
        rates: stochastic depth of each block.
        remat: whether blocks are computed again for the gradient.
        options: of the blocks.
    """

    before_blocks: ClassVar = ("merge",)

    def __init__(
        self,
        dim: int,
        *,
        merge: Merge | None,
        norm: LayerNorm | None,
        rates: tuple[float, ...],
        remat: bool,
        **options: Any,
    ):
        self.merge, self.norm, self.remat = merge, norm, remat
        shifts = (0, options["window"] // 2)
        self.blocks = nnx.List(
            [Block(dim, shift=shifts[number % 2], drop_path=rate, **options) for number, rate in enumerate(rates)]
        )

    def __call__(self, x: jax.Array, sizes: Sizes, key: jax.Array | None) -> jax.Array:
        """x (b, h, w, d), zero outside the valid region -> (b, h', w', dim), before its norm; sizes are the new."""
        x = x if self.merge is None else self.merge(x)
        for number, block in enumerate(self.blocks):
            inputs = x, sizes, None if key is None else jax.random.fold_in(key, number)
            x = recomputed(block, *inputs) if self.remat else block(*inputs)
        return x


class Swin(nnx.Module):
    """The backbone, a `backbones.base.Backbone`.

    Args:
        dim: channels of the first stage; each stage doubles them.
        depths: blocks of the stages.
        head_dim: channels of an attention head; divides dim.
        mlp_ratio: channels between a block's two layers, over those of its stage.
        window: M, rows and columns of a window.
        stage_norms: whether a norm stands at the end of every stage, or of the last only.
        drop_path: share of the training pictures that skip the last branch; of the first it is 0, linear in between.
        remat: whether blocks are computed again for the gradient, instead of storing what is inside.
        dtype: dtype of the products and of what is stored between layers; parameters stay float32, in which norms and
            softmax are computed.
        rngs: random streams for the initialization.

    Windows are shifted on maps of any size, as in mmsegmentation; Microsoft's classifier, which timm and transformers
    follow, neither shifts nor fills up windows where a map has no more rows or columns than one.

    Source: Liu et al., Swin transformer (ICCV 2021); the stages' norms: its segmentation networks, UperNets.
    """

    stages: ClassVar = STAGES
    parts: ClassVar = ("embedding", *STAGES)
    stem: ClassVar = ("embedding",)
    strides: ClassVar = tuple(PATCH * 2**number for number in range(len(STAGES)))
    nonnegative: ClassVar = False

    def __init__(
        self,
        *,
        dim: int = 96,
        depths: tuple[int, ...] = (2, 2, 18, 2),
        head_dim: int = 32,
        mlp_ratio: int = 4,
        window: int = 7,
        stage_norms: bool = False,
        drop_path: float = 0.0,
        remat: bool = False,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.channels = tuple(dim * 2**number for number in range(len(STAGES)))
        self.draws = drop_path > 0
        self.embedding = Embedding(dim, dtype=dtype, rngs=rngs)
        rates = [float(rate) for rate in np.linspace(0, drop_path, sum(depths))]
        options = {"head_dim": head_dim, "mlp_ratio": mlp_ratio, "window": window, "dtype": dtype, "rngs": rngs}
        options |= {"remat": remat}
        for stage, channels, depth in zip(STAGES, self.channels, depths, strict=True):
            merge = None if stage == STAGES[0] else Merge(channels // 2, dtype=dtype, rngs=rngs)
            norm = LayerNorm(channels, _EPSILON) if stage_norms or stage == STAGES[-1] else None
            of_stage, rates = tuple(rates[:depth]), rates[depth:]
            setattr(self, stage, Stage(channels, merge=merge, norm=norm, rates=of_stage, **options))

    def __call__(
        self, images: jax.Array, sizes: Sizes = None, *, train: bool = False, key: jax.Array | None = None
    ) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: without influence; there are no statistics.
            key: random key of the stochastic depth in training; None: every branch is taken.

        Returns:
            (b, h_s, w_s, d_s) of each stage, in its precision, zero outside the valid region of `grids`.
        """
        x, outputs = self.embedding(images), []
        for number, (name, grids) in enumerate(zip(STAGES, self.grids(sizes), strict=True)):
            stage = getattr(self, name)
            x = keep_valid(stage(x, grids, None if key is None else jax.random.fold_in(key, number)), grids)
            outputs.append(x if stage.norm is None else keep_valid(stage.norm(x), grids))
        return tuple(outputs)

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        return tuple(strided(sizes, stride) for stride in self.strides)
