"""kmeans_pytorch 0.3, what the reference uses."""

import kmeans_pytorch
import torch

from benchmarks import draws
from benchmarks.contestant import Ready


class _EnoughError(Exception):
    """The library has no limit of iterations; this ends it, with the centres."""


def cosine(count: int, clusters: int, iterations: int) -> Ready:
    """Cosine distance, raw means, from given centres."""
    points, start = draws.points(count, clusters)
    points_there, done = torch.from_numpy(points), [0]
    distances = kmeans_pytorch.pairwise_cosine

    def counted(data, centres, *rest):
        if done[0] == iterations:
            raise _EnoughError(centres.clone())
        done[0] += 1
        return distances(data, centres, *rest)

    kmeans_pytorch.pairwise_cosine = counted
    kmeans_pytorch.initialize = lambda *_: torch.from_numpy(start).clone()

    def run():
        done[0] = 0
        try:
            return kmeans_pytorch.kmeans(points_there, clusters, distance="cosine", tol=0)[1]
        except _EnoughError as enough:
            return enough.args[0]

    return Ready(run, lambda centres: {"objective": draws.mean_cosine(points, centres.numpy()), "iterations": done[0]})
