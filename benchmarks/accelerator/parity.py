"""The device beside the CPU of the same process: how far its numbers are from those of the CPU, in float32.

The difference of two arrays is |a - b| / |b|, over all their values. What a network may differ by depends on how the
device multiplies: in full precision only the order of sums differs; TF32 keeps 11 bits of the factors, bfloat16 8.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from benchmarks import draws
from benchmarks.accelerator.compiled import cpu, device, mesh_of
from benchmarks.accelerator.part import Programs, Row
from benchmarks.accelerator.sizes import Sizes
from benchmarks.ours.trained import drawn_prototypes, optimizer_of, with_drawn_weights
from lpcam_jax import cluster_classes, directions, kmeans, without_context
from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.backbones.layers.valid import Sizes as ValidSizes
from lpcam_jax.data.resizing import resize_bicubic
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.refine.crf import mean_field
from lpcam_jax.refine.random_walk import STRIDE, random_walk
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.lpcam.maps import features_of_both, grid_maps
from lpcam_jax.systems.lpcam.network import Classifier
from lpcam_jax.training.state import inference_network

FULL_PRECISION = "float32 in full precision"
# What the numbers of a network may differ by, several times what rounding the factors costs a ResNet-50 (6e-4 in TF32,
# 5e-3 in bfloat16). "float32" is by JAX's default: TF32 on newer NVIDIA GPUs, bfloat16 on TPUs.
OF_NETWORKS = {FULL_PRECISION: 1e-4, "float32": 5e-3, "bfloat16": 5e-2}
ON_TPU = {"float32": 2e-2}
# And those of the method, which asks for full precision; and how many pixels may have another label.
OF_METHOD, OF_LABELS = 1e-5, 1e-3
ARRAYS = ("features", "cam", "lpcam", "logits")


def programs(sizes: Sizes) -> Programs:
    """All comparisons."""
    for how in OF_NETWORKS:
        for array in ARRAYS:
            yield f"{array}, {how}", partial(_of_network, sizes, how, array)
    yield "k-means from given centres: directions", partial(_kmeans, sizes)
    yield "k-means of classes from k-means++: objective", partial(_objective, sizes)
    yield "CRF: labels", partial(_crf, sizes)
    yield "random walk", partial(_walk, sizes)


def difference(one: Any, other: Any) -> float:
    """|one - other| / |other| of two arrays."""
    one, other = (np.asarray(array, np.float64) for array in (one, other))
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(other), 1e-30))


def on(where: jax.Device, function: Callable, *arguments: Any) -> Any:
    """The result of a jitted function, computed there, as NumPy arrays."""
    return jax.device_get(function(*jax.device_put(arguments, where)))


def _row(found: float, allowed: float) -> Row:
    return {"difference": found, "allowed": allowed, "agrees": bool(found <= allowed)}


def _of_network(sizes: Sizes, how: str, array: str) -> Row:
    expected = _network(sizes, FULL_PRECISION, cpu())
    allowed = OF_NETWORKS | (ON_TPU if device().platform == "tpu" else {})
    return _row(difference(_network(sizes, how, device())[array], expected[array]), allowed[how])


@cache
def _network(sizes: Sizes, how: str, where: jax.Device) -> dict[str, np.ndarray]:
    """Features, maps and logits of two padded pictures, as infer.py computes them."""
    precision = "bfloat16" if how == "bfloat16" else "float32"
    model = ResNetConfig(blocks=sizes.blocks, width=sizes.width, stem_width=sizes.width, precision=precision)
    config = LPCAMConfig(model=model)
    state = with_drawn_weights(config, optimizer_of(config, steps=1))
    network = inference_network(config, state, draws.CLASSES, devices=mesh_of(where))
    valid = np.int32([sizes.picture, [length - 7 for length in sizes.picture]])
    pictures = np.zeros((2, *(-(-length // 32) * 32 for length in sizes.picture), 3), np.uint8)
    for picture, (rows, columns) in zip(pictures, valid, strict=True):
        picture[:rows, :columns] = _picture((rows, columns))
    stacked = drawn_directions(len(state.parameters["head"]))
    inputs = jax.device_put((pictures, valid), where)
    with jax.default_matmul_precision("highest") if how == FULL_PRECISION else nullcontext():
        return jax.device_get(network.forward(_features_and_maps, stacked)(*inputs))


def _features_and_maps(
    model: Classifier, pictures: jax.Array, sizes: ValidSizes, stacked: jax.Array
) -> dict[str, jax.Array]:
    features, *_ = features_of_both(model, pictures, sizes)
    return {"features": features} | grid_maps(model, pictures, sizes, stacked)


def drawn_directions(channels: int) -> np.ndarray:
    """Directions of LPCAM-F and LPCAM of drawn prototypes, float32 (2 c, channels)."""
    prototypes = drawn_prototypes(channels)
    return np.concatenate([directions(without_context(prototypes)), directions(prototypes)])


def _kmeans(sizes: Sizes) -> Row:
    points, start = draws.points(sizes.points, 12)
    cluster = jax.jit(partial(kmeans, tol=0.0, max_iterations=10))
    ours, theirs = (on(where, cluster, points, np.ones(len(points), np.float32), start) for where in (device(), cpu()))
    return _row(difference(ours.directions, theirs.directions), OF_LABELS)


def _objective(sizes: Sizes) -> Row:
    points = np.stack([draws.points(sizes.points, 12)[0]] * 2)
    cluster = partial(cluster_classes, max_iterations=10)
    arguments = jax.random.split(jax.random.key(0)), points, np.ones(points.shape[:2], np.float32)
    ours, theirs = (on(where, cluster, *arguments) for where in (device(), cpu()))
    return _row(difference(ours.objective, theirs.objective), OF_LABELS)


def _crf(sizes: Sizes) -> Row:
    image = _picture(sizes.picture)
    energies = np.random.default_rng(0).random((*sizes.picture, 4), np.float32)
    ours, theirs = (on(where, mean_field, image, energies) for where in (device(), cpu()))
    return _row(float(np.mean(ours.argmax(axis=-1) != theirs.argmax(axis=-1))), OF_LABELS)


def _walk(sizes: Sizes) -> Row:
    random, grid = np.random.default_rng(0), [-(-length // STRIDE) for length in sizes.picture]
    maps, edges = random.random((*grid, 3), np.float32), random.random(grid, np.float32) ** 3
    ours, theirs = (on(where, random_walk, maps, edges) for where in (device(), cpu()))
    return _row(difference(ours, theirs), OF_METHOD)


def _picture(size: tuple[int, int]) -> np.ndarray:
    """A drawn scene, uint8 (H, W, 3)."""
    return resize_bicubic(Shapes(1)[0].image, size)
