"""The prototype stage: the trained network's local features are clustered, selected and stored with the run.

bounded sample (`sampling`) -> spherical k-means of every class and every context
         -> selection by the classifier -> picture patches that illustrate each centre (`prototype_patches`)
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ...clustering import KMeans, cluster_classes
from ...data.records import RecordSource, census
from ...machine import processes
from ...machine.devices import local_mesh, map_shards, split_over, traces_for_cpus
from ...prototypes import BOUNDS_OF_FEW, ENOUGH_CLASSES, Prototypes, own_scores, select_prototypes
from ...training.checkpoints import TrainState
from ...training.run import Job
from ...training.state import trained_state
from .clustered import Clustered
from .prototype_patches import Nearest, nearest_features, write_patches
from .sampling import sample_features
from .stored_prototypes import has_prototypes, save_prototypes

# Upper bound on the bytes of features that one device clusters at a time.
_CLUSTERED_AT_A_TIME = 2**30


def make_prototypes(
    job: Job,
    source: RecordSource,
    clustered_of: Callable[[Any, TrainState], Clustered],
    *,
    finish: Callable[[TrainState, Prototypes], Prototypes] = lambda _, prototypes: prototypes,
) -> None:
    """Cluster the features of a run's pictures and add the prototypes, and the patches that show them, to the run.

    Prints the selection, one line per class. Does nothing if the run has its prototypes already.

    Args:
        job: the run, with its trained network, and the mesh.
        source: labelled pictures.
        clustered_of: config and state -> what of the network is clustered.
        finish: state and selected prototypes -> those that are stored, on every process.

    Raises:
        UserError: there is no trained network, or no picture could be read.

    Source: paper section 3.2; reference step "make_lpcam".
    """
    run, devices = job
    pictures = census(source)
    if has_prototypes(run, pictures):
        return
    state = trained_state(run, devices=devices)
    settings, clustered = run.config.prototypes, clustered_of(run.config, state)
    options = {"thresholds": (settings.threshold,), "devices": local_mesh()}
    (sample,) = sample_features(run.config, state, source, clustered, **options)
    keys = jax.random.split(jax.random.key(run.config.seed))
    options = {"k": settings.clusters, "update": settings.update, "restarts": settings.restarts}
    means, counts, nearest = [], [], []
    with tqdm(total=2 * len(source.class_names), desc="clustering", unit="class") as bar:
        for context in (False, True):
            points, point_weights = sample.points(context=context)
            positions = sample.positions(context=context)
            groups = []
            for group, clusters in cluster_in_groups(keys[int(context)], points, point_weights, devices, **options):
                members = nearest_features(points[group], point_weights[group], positions[group], clusters)
                groups.append((clusters.means, clusters.counts, *members))
                bar.update(len(clusters.counts))
            set_means, set_counts, *members = map(np.concatenate, zip(*groups, strict=True))
            means.append(set_means)
            counts.append(set_counts)
            nearest.append(Nearest(*members))
    bounds = {"mu_f": settings.mu_f, "context": settings.context}
    prototypes = select_prototypes(*means, clustered.weights, bias=clustered.bias, **bounds)
    for line in selection_report(source.class_names, prototypes, clustered.weights, clustered.bias, mu_f=settings.mu_f):
        tqdm.write(line)
    prototypes = finish(state, prototypes)
    if processes.is_first():
        shown = source, prototypes, clustered.weights, counts, nearest
        write_patches(
            run.directory,
            settings,
            *shown,
            stride=clustered.stride,
            longest=run.config.data.longest,
            bias=clustered.bias,
        )
        save_prototypes(run, prototypes, step=int(state.step), state=state, pictures=pictures)


def cluster_in_groups(
    key: jax.Array, points: np.ndarray, weights: np.ndarray, devices: Mesh, **options
) -> Iterator[tuple[slice, KMeans]]:
    """Run `cluster_classes` on groups of classes, split over the devices; one group's points at a time are on them.

    Args:
        key: random key.
        points: float32 (c, n, d), on the host.
        weights: float32 (c, n).
        devices: the mesh.
        options: keyword arguments of `cluster_classes`.

    Yields:
        (slice of the classes, their KMeans as NumPy arrays). The numbers do not depend on the grouping.
    """
    keys = np.asarray(jax.random.key_data(jax.random.split(key, len(points))))
    size = classes_at_once(devices, points[0].nbytes, len(points))
    cluster = _on_shards(devices, tuple(sorted(options.items())))
    for start in range(0, len(points), size):
        group = slice(start, min(start + size, len(points)))
        count = group.stop - start
        missing = size - count  # the last group is padded with classes of weight 0
        padded = [np.pad(x[group], [(0, missing)] + [(0, 0)] * (x.ndim - 1)) for x in (keys, points, weights)]
        result = cluster(*split_over(padded, devices))
        yield group, jax.tree.map(lambda leaf, count=count: np.asarray(leaf)[:count], result)


def classes_at_once(devices: Mesh, nbytes: int, classes: int) -> int:
    """How many classes to cluster at a time, a multiple of the number of devices.

    On CPUs it is one class per device, because the batched matrix products of several classes run at half the speed;
    elsewhere not more than it takes to give all devices their share.

    Args:
        devices: the mesh.
        nbytes: bytes of features per class.
        classes: number of all classes.
    """
    fit = 1 if traces_for_cpus() else max(_CLUSTERED_AT_A_TIME // nbytes, 1)
    return min(fit, -(-classes // devices.size)) * devices.size


@cache
def _on_shards(devices: Mesh, options: tuple):
    def cluster(keys, points, weights):
        return cluster_classes(jax.random.wrap_key_data(keys), points, weights, **dict(options))

    return map_shards(cluster, devices)


def selection_report(
    class_names: tuple[str, ...],
    prototypes: Prototypes,
    weights: np.ndarray,
    bias: np.ndarray | None = None,
    *,
    mu_f: float,
) -> list[str]:
    """Describe the selection in one line per class, including fallbacks and classes without any prototype.

    Args:
        class_names: c names.
        prototypes: the prototypes of the classes.
        weights: float (d, c), the classifier's head.
        bias: float (c,), of the head; None: there is none.
        mu_f: lower bound on the score of a class prototype, where there are enough classes for it.

    Returns:
        c lines.
    """
    bound = mu_f if len(class_names) >= ENOUGH_CLASSES else BOUNDS_OF_FEW[0]
    scores = np.asarray(own_scores(prototypes.class_centres, prototypes.class_centres, weights, bias=bias))
    lines = []
    for n, name in enumerate(class_names):
        selected, context = np.asarray(prototypes.class_mask[n]), np.asarray(prototypes.context_mask[n])
        line = f"{name}: {selected.sum()} class and {context.sum()} context prototypes"
        if not selected.any():
            line += "; no feature belongs to this class: its LPCAM will be empty (is it in any picture?)"
        elif not (scores[n, selected] > bound).any():
            line += f"; none scored above {bound:g}, the best ({scores[n, selected].max():.2f}) is used"
        lines.append(line)
    return lines
