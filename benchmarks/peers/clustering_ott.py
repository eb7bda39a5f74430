"""ott-jax, with the cosine as cost."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from ott.geometry import costs, pointcloud
from ott.tools.k_means import k_means

from benchmarks import draws
from benchmarks.contestant import Ready


def cosine(count: int, clusters: int, iterations: int) -> Ready:
    """So many iterations from given centres; the points are made unit, the means stay raw."""
    points, start = draws.points(count, clusters)
    first = jnp.asarray(start / np.linalg.norm(start, axis=1, keepdims=True))
    on_device = jax.device_put(points)

    @jax.jit
    def cluster(points):
        geometry = pointcloud.PointCloud(points, cost_fn=costs.Cosine())
        options = {"n_init": 1, "tol": 0.0, "min_iterations": iterations, "max_iterations": iterations}
        return k_means(geometry, clusters, init=partial(_given, first), **options)

    return Ready(
        lambda: jax.block_until_ready(cluster(on_device)),
        lambda found: {
            "objective": draws.mean_cosine(points, np.asarray(found.centroids)),
            "iterations": int(found.iteration),
        },
    )


def _given(centres, *_):
    return centres
