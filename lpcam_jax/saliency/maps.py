"""Saliency maps of pictures of any size, all of which U2-Net sees in one shape.

    picture -> 320x320 -> divided by its largest value, normalized -> U2-Net -> stretched to [0, 255] -> picture's size

Deviations from U2-Net's program: the picture is rounded to 8 bits once it is 320x320; a black picture and a flat map,
which are divided by zero there, are nowhere salient. Source: its u2net_test.py, with the scikit-image that it asks for,
which shrinks without antialiasing.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from PIL import Image
from tqdm import tqdm

from ..data.records import Record, RecordSource
from ..data.resizing import resize_bilinear_uint8
from ..machine.devices import jit_forward, local_mesh, replicate, shard
from ..machine.errors import UserError
from ..machine.threads import map_ahead
from .weights import load_u2net

SIDE = 320
_MEAN, _STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
_AT_A_TIME = 4  # pictures in the batch of a device: each takes 0.1 GB there

Saliency = tuple[int, Record | UserError, np.ndarray | None]


class SaliencyNetwork(NamedTuple):
    """A U2-Net with its parameters, on the devices of this process.

    Attributes:
        graph: the network's graph.
        parameters: its parameters, on all devices.
        devices: the mesh.
    """

    graph: nnx.GraphDef
    parameters: Any
    devices: Mesh

    @classmethod
    def open(cls, weights: str) -> "SaliencyNetwork":
        """Read a file of weights, and print a report; raises UserError as `load_u2net` does."""
        graph, loaded = load_u2net(weights)
        tqdm.write(f"weights {weights}: {loaded}")
        devices = local_mesh()
        return cls(graph, replicate(loaded.backbone, devices), devices)

    def map_pictures(self, source: RecordSource, *, only: Sequence[int], among: Sequence[int]) -> Iterator[Saliency]:
        """Compute the maps, with a progress bar.

        Args:
            source: the pictures.
            only: indices of those to compute, ascending.
            among: indices of those that share the batches, ascending. Each has its slot in one of them whatever is
                computed, so that its map has the same bits.

        Yields:
            (index, record, uint8 (H, W), 255 where the picture is most salient), in the order of `only`; (index, error,
            None) for a picture that cannot be read.
        """
        count = _AT_A_TIME * self.devices.size
        places = {index: divmod(place, count) for place, index in enumerate(among)}
        compute, before = _compiled(self.graph), None
        with tqdm(total=len(only), desc="saliency", unit="img", smoothing=0.05) as bar:
            read = map_ahead(lambda index: _squared(source, index), only)
            for _, group in groupby(read, lambda item: places[item[0]][0]):
                batch, squares = list(group), np.zeros((count, SIDE, SIDE, 3), np.uint8)
                for index, _, square in batch:
                    if square is not None:
                        squares[places[index][1]] = square
                maps = compute(self.parameters, shard(squares, self.devices))
                if before:  # which the devices have computed while this one was read
                    yield from _finished(*before, places, bar)
                before = batch, maps
            if before:
                yield from _finished(*before, places, bar)


def stretched_saliency(network: nnx.Module, squares: jax.Array) -> jax.Array:
    """Saliency of square pictures, each stretched to the range of 8 bits.

    Args:
        network: a `U2Net`.
        squares: uint8 (b, s, s, 3), RGB.

    Returns:
        uint8 (b, s, s), floor(255 (p - min p) / (max p - min p)); zeros of a black picture or a flat map.

    Source: U2-Net's `ToTensorLab`, `normPRED` and `save_output`.
    """
    pictures = squares.astype(jnp.float32)
    brightest = pictures.max(axis=(1, 2, 3), keepdims=True)
    pictures = (pictures / jnp.maximum(brightest, 1) - _MEAN.reshape(1, 1, 1, 3)) / _STD.reshape(1, 1, 1, 3)
    saliency = network(pictures)
    low, high = (extreme(saliency, axis=(1, 2), keepdims=True) for extreme in (jnp.min, jnp.max))
    is_flat = (high <= low) | (brightest[..., 0] == 0)
    return jnp.where(is_flat, 0, 255 * ((saliency - low) / jnp.where(is_flat, 1, high - low))).astype(jnp.uint8)


@cache
def _compiled(graph: nnx.GraphDef) -> Any:
    """Compile (parameters, squares) -> maps, once for all folders."""
    return jit_forward(lambda parameters, squares: stretched_saliency(nnx.merge(graph, parameters), squares))


def _squared(source: RecordSource, index: int) -> Saliency:
    """(index, record, the picture as the network sees it); (index, error, None) if it cannot be read."""
    try:
        record = source[index]
    except UserError as error:
        return index, error, None
    return index, record, resize_bilinear_uint8(record.image, (SIDE, SIDE))


def _finished(
    batch: Sequence[Saliency], maps: jax.Array, places: dict[int, tuple[int, int]], bar: tqdm
) -> Iterator[Saliency]:
    """The maps of a batch, at the sizes of their pictures."""
    maps = np.asarray(maps)
    for index, record, square in batch:
        bar.update()
        if square is None:
            yield index, record, None
        else:
            size = record.image.shape[1::-1]
            map = Image.fromarray(maps[places[index][1]]).resize(size, Image.Resampling.BILINEAR)
            yield index, record, np.asarray(map)
