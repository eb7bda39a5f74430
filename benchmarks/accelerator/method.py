"""What the device itself does at most, then the method's functions: maps, clustering, and refinement."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import chips, draws
from benchmarks.accelerator.compiled import compiled, device, mesh_of
from benchmarks.accelerator.part import Programs, Row, timed
from benchmarks.accelerator.sizes import Sizes
from benchmarks.ours.trained import drawn_prototypes
from lpcam_jax import cam, cluster_classes, directions, lpcam
from lpcam_jax.data.resizing import resize_bicubic
from lpcam_jax.data.shapes import Shapes
from lpcam_jax.refine.crf import mean_field
from lpcam_jax.refine.random_walk import STRIDE, random_walk
from lpcam_jax.systems.prototyping.stage import classes_at_once, cluster_in_groups

CHANNELS, CLUSTERS, ITERATIONS = 2048, 12, 10


def peaks(sizes: Sizes) -> Programs:
    """What the device is, and what it does at most."""
    yield "the device", _device
    yield (
        "a large product, a large copy",
        lambda: {"peaks": chips.measured(side=sizes.peak_side, nbytes=sizes.peak_bytes)},
    )


def programs(sizes: Sizes) -> Programs:
    """Maps, clustering, refinement."""
    blocks = f"{sizes.features} x 32x32x{CHANNELS} features"
    yield f"plain CAM, {blocks}, {draws.CLASSES} classes", partial(_maps, sizes, "cam")
    yield f"LPCAM, {blocks}, {draws.CLASSES} classes", partial(_maps, sizes, "lpcam")
    yield f"LPCAM from prototypes, {blocks}, {draws.CLASSES} classes", partial(_maps, sizes, "prototypes")
    for classes in sizes.classes:
        name = f"k-means of {classes} classes, {sizes.points:,} features each"
        yield name, partial(_kmeans, sizes, classes)
        yield f"{name}, from the memory of the host", partial(_kmeans_from_host, sizes, classes)
    height, width = sizes.picture
    yield f"CRF, {width}x{height} pixels, 4 labels", partial(_crf, sizes)
    yield f"random walk, {width}x{height} pixels, 4 classes", partial(_walk, sizes)


def _device() -> Row:
    one, stats = device(), device().memory_stats() or {}
    facts = {"platform": one.platform, "kind": one.device_kind, "devices": len(jax.devices())}
    return {"device": facts | ({"memory, GB": stats["bytes_limit"] / 1e9} if "bytes_limit" in stats else {})}


def _peaks(sizes: Sizes) -> Row:
    return {"peaks": chips.measured(side=sizes.peak_side, nbytes=sizes.peak_bytes)}


def _maps(sizes: Sizes, kind: str) -> Row:
    prototypes = drawn_prototypes()
    weights = {"cam": draws.head(), "lpcam": directions(prototypes), "prototypes": prototypes}[kind]
    features = jnp.tile(draws.features(1), (sizes.features, 1, 1, 1))
    arguments = jax.device_put((features, weights), device())
    return _compiled_and_timed(sizes, cam if kind == "cam" else lpcam, *arguments)


def _compiled_and_timed(sizes: Sizes, function: Callable, *arguments: Any) -> Row:
    program = compiled(function, *arguments)
    row = _timed(sizes, lambda: program.run(*arguments))
    return row | {"flops": program.flops, "bytes": program.bytes, "precision": "highest"}


@cache
def _points(sizes: Sizes, classes: int) -> jax.Array:
    """Features around more directions than are looked for, float32 (classes, n, d), drawn on the device."""

    @jax.jit
    def draw(key):
        around, which, noise = jax.random.split(key, 3)
        centres = 0.3 * jax.random.normal(around, (3 * CLUSTERS, CHANNELS))
        chosen = jax.random.randint(which, (sizes.points,), 0, len(centres))
        return jax.nn.relu(centres[chosen] + jax.random.normal(noise, (sizes.points, CHANNELS)))

    return jnp.stack([draw(key) for key in jax.random.split(jax.random.key(0), classes)])


def _kmeans(sizes: Sizes, classes: int) -> Row:
    """As many classes at a time as on a device of train.py; the features are on the device."""
    points = _points(sizes, classes)
    weights, keys = jnp.ones(points.shape[:2]), jax.random.split(jax.random.key(1), classes)
    size = classes_at_once(mesh_of(device()), points[0].nbytes, classes)
    groups = [slice(start, start + size) for start in range(0, classes, size)]
    cluster = partial(cluster_classes, k=CLUSTERS, max_iterations=ITERATIONS)
    parts = [(keys[group], points[group], weights[group]) for group in groups]
    passes = [2 * (int(cluster(*part).iterations.max()) + 1) for part in parts]  # assignments, then sums of members
    row = _timed(sizes, lambda: [cluster(*part) for part in parts])
    nbytes = sum(count * part[1].nbytes for count, part in zip(passes, parts, strict=True))
    flops = sum(count * 2 * part[1].size * CLUSTERS for count, part in zip(passes, parts, strict=True))
    facts = {"classes at a time": size, "iterations": max(passes) // 2 - 1}
    return row | {"flops": flops, "bytes": nbytes, "precision": "highest", "facts": facts}


def _kmeans_from_host(sizes: Sizes, classes: int) -> Row:
    """The stage of train.py: groups of classes are copied to the device."""
    points = np.asarray(_points(sizes, classes))
    weights, mesh = np.ones(points.shape[:2], np.float32), mesh_of(device())
    options = {"k": CLUSTERS, "max_iterations": ITERATIONS}

    def run(times: int) -> None:
        for _ in range(times):
            list(cluster_in_groups(jax.random.key(1), points, weights, mesh, **options))

    return timed(run, least=sizes.seconds)  # without a roofline: the way from the host is not the device's memory


def _crf(sizes: Sizes) -> Row:
    image = resize_bicubic(Shapes(1)[0].image, sizes.picture)
    energies = np.random.default_rng(0).random((*sizes.picture, 4), np.float32)
    arguments = jax.device_put((image, energies), device())
    return _timed(sizes, lambda: mean_field(*arguments))


def _walk(sizes: Sizes) -> Row:
    random, grid = np.random.default_rng(0), [-(-length // STRIDE) for length in sizes.picture]
    drawn = random.random((*grid, 4), np.float32), random.random(grid, np.float32) ** 3
    arguments = jax.device_put(drawn, device())
    return _timed(sizes, lambda: random_walk(*arguments))


def _timed(sizes: Sizes, work: Callable[[], Any]) -> Row:
    """Of work without a wait: its runs follow each other on the device."""
    return timed(lambda times: jax.block_until_ready([work() for _ in range(times)]), least=sizes.seconds)
