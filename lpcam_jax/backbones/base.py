"""What a backbone is to everything else: pictures in, features of every stage out, exact on padded pictures."""

from typing import ClassVar, Protocol

import jax

from .layers import Sizes


class Backbone(Protocol):
    """An `nnx.Module` that turns pictures into features; the valid region equals that of the picture alone.

    Attributes:
        stages: names of the stages, fine to coarse.
        channels: d_s of each stage.
        strides: pixels a position of each stage.
        parts: what `--training.frozen` may name, first to last layer; attributes of the module.
        nonnegative: whether the last features come from a ReLU.

    Modules say themselves what others have to know of them, where there is something to know:

        folds: ClassVar[tuple[tuple[str, str], ...]]
            (convolution, batch norm that is applied to its output and to nothing else), attributes of the module:
            what `folding` may fold.
        branch_end: ClassVar[tuple[str, str]]
            (layer, parameter) that, if it is zero, makes a residual block its shortcut.
    """

    stages: ClassVar[tuple[str, ...]]
    channels: tuple[int, ...]
    strides: tuple[int, ...]
    parts: ClassVar[tuple[str, ...]]
    nonnegative: ClassVar[bool]

    def __call__(self, images: jax.Array, sizes: Sizes = None, *, train: bool = False) -> tuple[jax.Array, ...]:
        """Features of every stage.

        Args:
            images: float (b, h, w, 3), preprocessed, zero outside the valid region.
            sizes: int32 (b, 2), valid rows and columns of each picture; None: all.
            train: whether batch norm uses and updates with the statistics of this batch.

        Returns:
            float32 (b, h_s, w_s, d_s) of each stage, zero outside the valid region of `grids`.
        """
        ...

    def grids(self, sizes: Sizes) -> tuple[Sizes, ...]:
        """Valid sizes of every stage for pictures of these sizes, int32 (b, 2) each."""
        ...
