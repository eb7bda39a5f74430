"""The compiled forward pass of any network: padded pictures, optionally with mirror images -> named arrays."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from ..backbones.layers.valid import Sizes
from ..config import Batches
from ..data.records import Record, RecordSource
from ..machine.devices import jit_forward, replicate
from ..machine.errors import UserError
from .passes import run_passes
from .plan import Outputs, Pass


class PictureNetwork(Protocol):
    """The interface common to all networks of the package."""

    preprocessing: Callable[[jax.Array, jax.Array], jax.Array]

    def grid_sizes(self, sizes: Sizes) -> Sizes:
        """Valid sizes of its outputs for pictures of these sizes; both int32 (b, 2)."""
        ...


Function = Callable[..., Outputs]
"""(network, pictures uint8 (b, h, w, 3), sizes int32 (b, 2), *constants, *extra input) -> arrays, leading axis b."""


class Network(NamedTuple):
    """A network with its arrays, on its devices.

    Attributes:
        graph: the network's graph.
        arrays: its parameters and batch statistics, on all devices.
        devices: the mesh.
        longest: pixels of the longest side that pictures may have before they are scaled, `Data.longest`; None: any.
    """

    graph: nnx.GraphDef
    arrays: tuple[dict[str, Any], dict[str, Any]]
    devices: Mesh
    longest: int | None = None

    def forward(self, function: Function, *constants: Any) -> Callable[..., Outputs]:
        """Compile a function of this network, for `plan.Pass`; each shape is compiled once, also over several calls.

        Args:
            function: a module-level function; compilations are cached by its identity.
            constants: arrays passed to it after the sizes; copied to all devices.

        Returns:
            (pictures, sizes, *extra input) -> arrays, and "grid", the valid sizes on the network's grid.
        """
        return partial(forward(self.graph, function), self.arrays, replicate(constants, self.devices))

    def run(
        self,
        function: Function,
        source: RecordSource,
        *,
        scales: Sequence[float],
        fit: tuple[int, int] | None = None,
        batches: Batches,
        constants: Sequence[Any] = (),
        at_first: Function | None = None,
        description: str | None,
        only: Sequence[int] | None = None,
        among: Sequence[int] | None = None,
        extra_input: Callable[[Record], np.ndarray] | None = None,
    ) -> Iterator[tuple[int, Record | UserError, list[Outputs]]]:
        """Compute a function of every picture at every scale; the scales share batches.

        Args:
            function: see `forward`.
            source: the pictures.
            scales: factors on the sides of the pictures.
            fit: short and long side that they are first brought to, see `plan.Pass`; None: their own.
            batches: limits of batches and shapes.
            constants: see `forward`.
            at_first: computed at the first scale instead; None: the same function at all.
            description: label of the progress bar; None: no progress bar.
            only: indices to compute; None: all.
            among: indices of the pictures that share the batches, as for `plan_batches`; None: those of `only`.
            extra_input: record -> further input of the function, after the constants; None: no further input.

        Yields:
            See `passes.run_passes`.
        """
        network = self.forward(function, *constants)
        passes = [Pass(scale, network, fit, self.longest) for scale in scales]
        if at_first:
            passes[0] = passes[0]._replace(network=self.forward(at_first, *constants))
        options = {"description": description, "only": only, "among": among, "extra_input": extra_input}
        return run_passes(passes, source, batches=batches, devices=self.devices, **options)


@cache
def forward(graph: nnx.GraphDef, function: Function) -> Callable[..., Outputs]:
    """Compile (arrays, constants, pictures, sizes, *extra input) -> arrays of `function`, and "grid"."""

    @jit_forward
    def compiled(arrays, constants, pictures, sizes, *extra_input):
        network = nnx.merge(graph, *arrays)
        return function(network, pictures, sizes, *constants, *extra_input) | {"grid": network.grid_sizes(sizes)}

    return compiled


def as_they_are(network: PictureNetwork, pictures: jax.Array, sizes: jax.Array) -> jax.Array:
    """Preprocess padded pictures for a network, without mirror images.

    Args:
        network: the network.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        float32 (b, h, w, 3), zero outside the valid region.
    """
    return network.preprocessing(pictures, jnp.concatenate([jnp.zeros_like(sizes), sizes], axis=1))


def with_mirror_images(network: PictureNetwork, pictures: jax.Array, sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Preprocess padded pictures and their mirror images for a network.

    Args:
        network: the network.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.

    Returns:
        float32 (2 b, h, w, 3), each picture followed by its mirror image, zero outside the valid region; and int32
        (2 b, 2), their sizes.
    """
    both, extents = in_pairs(pictures, mirror(pictures, sizes[:, 1])), in_pairs(sizes, sizes)
    return as_they_are(network, both, extents), extents


def mirrored_back(x: jax.Array, grid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Split outputs for `with_mirror_images` into those of the pictures and, mirrored back, of the mirror images.

    Args:
        x: (2 b, h, w, d).
        grid: int32 (b or 2 b, 2), valid sizes of x, which are those of the pictures.

    Returns:
        (b, h, w, d) each.
    """
    straight, mirrored = out_of_pairs(x)
    return straight, mirror(mirrored, grid[:: len(grid) // len(straight), 1])


def in_pairs(straight: jax.Array, mirrored: jax.Array) -> jax.Array:
    """Put what is of each picture and what is of its mirror image one after the other: (b, ...) each -> (2 b, ...).

    So a batch that is split over devices stays where it is; with the mirror images last, half of it would move.
    """
    return jnp.stack([straight, mirrored], axis=1).reshape(-1, *straight.shape[1:])


def out_of_pairs(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The inverse of `in_pairs`: (2 b, ...) -> (b, ...) of the pictures, and of their mirror images."""
    pairs = x.reshape(-1, 2, *x.shape[1:])
    return pairs[:, 0], pairs[:, 1]


def mirror(x: jax.Array, widths: jax.Array) -> jax.Array:
    """Reverse the first `widths[i]` columns of each x[i]: (b, h, w, d), int32 (b,) -> (b, h, w, d)."""
    columns = jnp.arange(x.shape[2])[None, :]
    reverse = widths[:, None] - 1 - columns
    source = jnp.where(reverse >= 0, reverse, columns)
    return jax.vmap(lambda rows, order: jnp.take(rows, order, axis=1))(x, source)
