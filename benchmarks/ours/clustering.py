"""K-means of the features of a class."""

from functools import partial

import jax
import numpy as np

from benchmarks import draws
from benchmarks.contestant import Ready
from lpcam_jax import cluster_classes, kmeans
from lpcam_jax.clustering import kmeans_plus_plus


def ours(count: int, clusters: int, iterations: int, update: str = "spherical") -> Ready:
    """So many iterations from given centres; the extra memory is the compiler's, without arguments and results."""
    points, start = draws.points(count, clusters)
    data = jax.device_put((points, np.ones(count, np.float32), start))
    compiled = jax.jit(partial(kmeans, update=update, tol=0.0, max_iterations=iterations)).lower(*data).compile()
    extra = compiled.memory_analysis().temp_size_in_bytes / points.nbytes
    return Ready(
        lambda: jax.block_until_ready(compiled(*data)),
        lambda found: {
            "objective": draws.mean_cosine(points, np.asarray(found.directions)),
            "iterations": int(found.iterations),
        },
        {"extra memory, % of the points": 100 * extra},
    )


def plus_plus(count: int, clusters: int) -> Ready:
    """The k-means++ start."""
    points, _ = jax.device_put(draws.points(count, clusters))
    weights, key = jax.numpy.ones(count), jax.random.key(0)
    return Ready(lambda: jax.block_until_ready(kmeans_plus_plus(key, points, weights, k=clusters)), _counts_once)


def restarts(count: int, clusters: int, iterations: int, starts: int) -> Ready:
    """All of it from several starts, the best kept."""
    points, _ = jax.device_put(draws.points(count, clusters))
    weights, key = jax.numpy.ones((1, count)), jax.random.key(0)
    options = {"k": clusters, "restarts": starts, "max_iterations": iterations}
    return Ready(lambda: jax.block_until_ready(cluster_classes(key, points[None], weights, **options)), _counts_once)


def _counts_once(_) -> dict[str, int]:
    """Its time is that of the whole, whatever it iterates."""
    return {"iterations": 1}
