"""The interface of a backbone: pictures in, features of every stage out, exact on padded pictures."""

from typing import Any, ClassVar, Protocol

import jax

from .layers.valid import Sizes


class Backbone(Protocol):
    """An `nnx.Module` that turns pictures into features; padding has no influence on the valid region.

    Attributes:
        stages: names of the stages, fine to coarse.
        channels: d_s of each stage.
        strides: pixels per position of each stage.
        parts: names that `--training.frozen` accepts, first to last layer; attributes of the module.
        stem: those of its first layer, which `--training.frozen stem` freezes.
        nonnegative: whether the last features come from a ReLU.

    Its submodules may declare four more attributes:

        folds: ClassVar[tuple[tuple[str, str], ...]]
            (convolution, batch norm applied only to its output) attribute names: pairs that `folding` may fold.
        branch_end: ClassVar[tuple[str, str]]
            (layer, parameter) of a residual block that reduces the block to its shortcut if zero.
        undecayed: ClassVar[tuple[str, ...]]
            attribute names of parameters that have no weight decay.
        before_blocks: ClassVar[tuple[str, ...]]
            attribute names of layers that come before the first block of their part, for `--training.layer-decay`:
            it takes the children of `blocks` for the blocks of a part, and everything else beside them for what comes
            after the last one.

    One that leaves something out at random in training says so, the attribute `draws`, and has one more argument,
    `key`: the random key of a training step; None: nothing is left out.
    """

    stages: ClassVar[tuple[str, ...]]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    parts: ClassVar[tuple[str, ...]]
    stem: ClassVar[tuple[str, ...]]
    nonnegative: ClassVar[bool]

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: whether batch norm uses the statistics of this batch and updates the stored ones.

        Returns:
            (b, h_s, w_s, d_s) of each stage, float32 or in the backbone's precision, zero outside the valid region of
            `grids`.
        """
        ...

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes; all int32 (b, 2)."""
        ...


def drawn_with(backbone: Backbone, key: jax.Array | None) -> dict[str, Any]:
    """The argument `key` of a call of a backbone that draws; of any other, nothing."""
    return {"key": key} if getattr(backbone, "draws", False) else {}
