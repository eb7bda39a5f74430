"""K-means as others do it, from the same centres."""

import faiss
import numpy as np
from sklearn.cluster import KMeans

from benchmarks import draws
from benchmarks.contestant import Ready


def spherical_faiss(count: int, clusters: int, iterations: int) -> Ready:
    """faiss, spherical; it ends by itself when nothing changes, so its iterations are counted."""
    points, start = draws.points(count, clusters)
    units, start = _unit(points), _unit(start)

    def run():
        means = faiss.Kmeans(
            points.shape[1], clusters, niter=iterations, spherical=True, max_points_per_centroid=count, seed=0
        )
        means.train(units, init_centroids=start)
        return means

    def answer(means):
        return {"objective": draws.mean_cosine(points, means.centroids), "iterations": len(means.iteration_stats)}

    return Ready(run, answer)


def lloyd(count: int, clusters: int, iterations: int) -> Ready:
    """scikit-learn, Lloyd, on unit points: Euclidean, so a slightly other objective."""
    points, start = draws.points(count, clusters)
    units, start = _unit(points), _unit(start)

    def run():
        return KMeans(clusters, init=start, n_init=1, max_iter=iterations, tol=0, algorithm="lloyd").fit(units)

    def answer(model):
        return {"objective": draws.mean_cosine(points, model.cluster_centers_), "iterations": model.n_iter_}

    return Ready(run, answer)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
