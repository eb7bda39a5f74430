"""The kernels beside what they replace, in one process, as ratios.

    python -m benchmarks.kernels

LPCAM of a 32 x 32 x 2048 feature block, 20 classes, 12 class and 12 context prototypes each, and k-means of 20,000 such
features. Every peer is timed in turn, several times; medians. faiss is one of them where it is installed (`pip install
faiss-cpu`). Prints Markdown for RESULTS.md.
"""

import time
from collections.abc import Callable

import jax
import numpy as np
from sklearn.cluster import KMeans as SklearnKMeans

try:
    import faiss
except ImportError:  # a peer to compare with, no requirement: pip install faiss-cpu
    faiss = None

from lpcam_jax import Prototypes, cam, kmeans, lpcam, similarity_maps

ROUNDS = 7


def main() -> None:
    """Measure and print."""
    random = np.random.default_rng(0)
    features = random.random((1, 32, 32, 2048), np.float32)
    weights = random.normal(size=(2048, 20)).astype(np.float32)
    centres = random.random((2, 20, 12, 2048), np.float32)
    prototypes = Prototypes(centres[0], np.ones((20, 12), bool), centres[1], np.ones((20, 12), bool))

    def one_by_one():
        """Cosine map of each prototype in turn, as Eq. 5 is written."""
        block = features[0].reshape(-1, 2048)
        lengths = np.linalg.norm(block, axis=1)
        means = [
            [np.mean([block @ c / (lengths * np.linalg.norm(c)) for c in of_class], axis=0) for of_class in kind]
            for kind in centres
        ]
        return np.maximum(np.array(means[0]) - np.array(means[1]), 0)

    @jax.jit
    def one_einsum(features, centres):
        return jax.nn.relu(
            similarity_maps(features, centres[0]).mean(-1) - similarity_maps(features, centres[1]).mean(-1)
        )

    on_device = jax.device_put((features, weights, prototypes, centres))
    table(
        "LPCAM of one feature block",
        {
            "plain CAM": lambda: cam(on_device[0], on_device[1]),
            "LPCAM, one direction a class": lambda: lpcam(on_device[0], on_device[2]),
            "LPCAM, one einsum over prototypes": lambda: one_einsum(on_device[0], on_device[3]),
            "LPCAM, prototype by prototype (NumPy)": one_by_one,
        },
    )

    points = random.random((20_000, 2048), np.float32)
    ones, start = np.ones(len(points), np.float32), points[:12]
    unit_points = points / np.linalg.norm(points, axis=1, keepdims=True)
    data = jax.device_put((points, ones, start))
    iterations = 5

    def ours(update):
        return lambda: kmeans(*data, update=update, tol=0.0, max_iterations=iterations)

    def faiss_kmeans():
        peer = faiss.Kmeans(
            points.shape[1], 12, niter=iterations, spherical=True, max_points_per_centroid=len(points), seed=0
        )
        return peer.train(unit_points, init_centroids=unit_points[:12])

    def sklearn():
        model = SklearnKMeans(12, init=unit_points[:12], n_init=1, max_iter=iterations, tol=0, algorithm="lloyd")
        return model.fit(unit_points).inertia_

    programs = {"ours, spherical": ours("spherical"), "ours, mean": ours("mean"), "scikit-learn, Lloyd": sklearn}
    if faiss:
        programs["faiss, spherical"] = faiss_kmeans
    table(f"k-means, {iterations} iterations of 20,000 x 2048, K = 12", programs)


def table(title: str, programs: dict[str, Callable]) -> None:
    """Time the programs in turn and print a table of medians and ratios to the first."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program())
            times[name].append(time.perf_counter() - start)
    first = np.median(next(iter(times.values()))[1:])
    print(f"\n| {title} | ms | ratio |\n|---|---|---|")
    for name, values in times.items():
        median = np.median(values[1:])  # the first round compiles
        print(f"| {name} | {1000 * median:.2f} | {median / first:.2f} |")


if __name__ == "__main__":
    main()
