"""Seed quality over the method's parameters (paper, Figure 5), varied one at a time around the run's own values.

Any number of settings takes two passes over the pictures. The first samples local features for every tau; then each
(tau, K, seed) is clustered once. Because LPCAM is one direction per class, the second pass computes the maps of all
settings at once. Other values of mu_f and mu_b cost nothing, since they select among existing centres, nor do seed
thresholds, which are all scored together.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ...data.records import RecordSource
from ...inference.canvas import grid_extent
from ...inference.finish import finished_maps
from ...inference.plan import Outputs
from ...local_features import FeatureSample
from ...machine.errors import UserError
from ...prototype_activation import directions, lpcam
from ...prototypes import ENOUGH_CLASSES, Prototypes, select_prototypes
from ...results.counts import SeedScoring
from ...seeds import IGNORE
from ...training.checkpoints import TrainState
from ...training.state import inference_network, network_of
from ..prototyping.stage import cluster_in_groups
from .config import Clustering, LPCAMConfig
from .feature_sampling import sample_features
from .maps import EPSILON, cam_of_pair, features_of_both
from .network import Classifier

GRIDS = {
    "threshold": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "mu_f": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "mu_b": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "clusters": (4, 8, 12, 16, 20),
}


class Setting(NamedTuple):
    """The parameters of Figure 5, except the seed threshold: every setting is scored at all its values.

    Attributes:
        threshold: tau.
        mu_f: lower bound on the score of a class prototype.
        mu_b: upper bound on the score of a context prototype.
        clusters: K.
    """

    threshold: float
    mu_f: float
    mu_b: float
    clusters: int


def own_setting(prototypes: Clustering) -> Setting:
    """The setting of a run's config."""
    return Setting(prototypes.threshold, prototypes.mu_f, prototypes.context[1], prototypes.clusters)


def settings_around(own: Setting, classes: int) -> dict[str, list[Setting]]:
    """For each parameter in GRIDS, `own` and the settings that differ from it in that parameter, ascending.

    Args:
        own: the run's setting.
        classes: number of classes. With one or two the bounds of the scores are fixed (`own_scores`), and not varied.
    """
    grids = GRIDS if classes >= ENOUGH_CLASSES else {name: GRIDS[name] for name in GRIDS if not name.startswith("mu")}
    return {
        parameter: [own._replace(**{parameter: value}) for value in sorted({*grid, getattr(own, parameter)})]
        for parameter, grid in grids.items()
    }


def sweep_parameters(
    config: LPCAMConfig, state: TrainState, source: RecordSource, *, seeds: Sequence[int], devices: Mesh
) -> dict[str, Any]:
    """Score CAM, and LPCAM over the grid of every parameter.

    Args:
        config: the run's config; `prototypes` has its own values and how features are sampled and clustered.
        state: the trained classifier.
        source: labelled pictures with masks, which are clustered and scored.
        seeds: random seeds of the clustering; the run's own seed reproduces its prototypes.
        devices: the mesh.

    Returns:
        {"scored": pictures, "skipped": [lines], "cam": S, "lpcam": [S for every seed, at the own values], "settings":
        {parameter: [{"value", "own": whether it is the run's, "seeds": [S for every seed]}]}}, plain JSON values. S is
        `SeedScoring.report` without "confusion"; for LPCAM it also has "class_prototypes" and "context_prototypes",
        the number selected for each class.

    Raises:
        UserError: no picture could be read.
    """
    own = own_setting(config.prototypes)
    around = settings_around(own, state.parameters["head"].shape[1])
    settings = list(dict.fromkeys(setting for group in around.values() for setting in group))
    thresholds = sorted({setting.threshold for setting in settings})
    samples = sample_features(config, state, source, thresholds=thresholds, devices=devices)
    prototypes = make_all(
        settings,
        seeds,
        dict(zip(thresholds, samples, strict=True)),
        state.parameters["head"],
        prototypes=config.prototypes,
        devices=devices,
    )
    scored, reports, skipped = score_directions(
        config, state, source, [directions(selected) for selected in prototypes.values()], devices=devices
    )
    cam_report, *reports = ({key: report[key] for key in report if key != "confusion"} for report in reports)
    scores = {
        key: {
            **report,
            "class_prototypes": np.asarray(selected.class_mask).sum(axis=1).tolist(),
            "context_prototypes": np.asarray(selected.context_mask).sum(axis=1).tolist(),
        }
        for (key, selected), report in zip(prototypes.items(), reports, strict=True)
    }
    return {
        "scored": scored,
        "skipped": skipped,
        "cam": cam_report,
        "lpcam": [scores[own, seed] for seed in seeds],
        "settings": {
            parameter: [
                {
                    "value": getattr(setting, parameter),
                    "own": setting == own,
                    "seeds": [scores[setting, seed] for seed in seeds],
                }
                for setting in group
            ]
            for parameter, group in around.items()
        },
    }


def make_all(
    settings: Iterable[Setting],
    seeds: Sequence[int],
    samples: dict[float, FeatureSample],
    weights: jax.Array,
    *,
    prototypes: Clustering,
    devices: Mesh,
) -> dict[tuple[Setting, int], Prototypes]:
    """Make the prototypes of every setting and seed; settings with the same tau and K share their centres.

    Args:
        settings: the settings.
        seeds: random seeds of the clustering.
        samples: tau -> its feature sample; each is removed once clustered, to bound the memory.
        weights: float (d, c), the classifier's head.
        prototypes: how to cluster, and the lower bound on the score of a context prototype.
        devices: the mesh.

    Returns:
        {(setting, seed): Prototypes}.
    """
    groups: dict[float, dict[int, list[Setting]]] = {}
    for setting in settings:
        groups.setdefault(setting.threshold, {}).setdefault(setting.clusters, []).append(setting)
    by_setting = {}
    with tqdm(total=len(seeds) * sum(map(len, groups.values())), desc="clustering", unit="clustering") as bar:
        for threshold, by_clusters in groups.items():
            sample = samples.pop(threshold)
            sets = [sample.points(context=context) for context in (False, True)]
            del sample
            for clusters, group in by_clusters.items():
                for seed in seeds:
                    means = cluster_sets(
                        sets,
                        seed,
                        clusters=clusters,
                        update=prototypes.update,
                        restarts=prototypes.restarts,
                        devices=devices,
                    )
                    for setting in group:
                        bounds = {"mu_f": setting.mu_f, "context": (prototypes.context[0], setting.mu_b)}
                        by_setting[setting, seed] = select_prototypes(*means, weights, **bounds)
                    bar.update()
    return by_setting


def cluster_sets(
    sets: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    *,
    clusters: int,
    update: str,
    restarts: int,
    devices: Mesh,
) -> list[np.ndarray]:
    """Cluster the features of classes and contexts exactly as `make_prototypes` does with the same seed.

    Args:
        sets: (points float32 (c, n, d), weights float32 (c, n)) of the classes, then of the contexts.
        seed: random seed.
        clusters: K.
        update: see `kmeans`.
        restarts: see `cluster_classes`.
        devices: the mesh.

    Returns:
        Raw means of the clusters, float32 (c, K, d), of the classes and of the contexts.
    """
    keys = jax.random.split(jax.random.key(seed))
    options = {"k": clusters, "update": update, "restarts": restarts}
    return [
        np.concatenate([group.means for _, group in cluster_in_groups(key, *points, devices, **options)])
        for key, points in zip(keys, sets, strict=True)
    ]


def score_directions(
    config: LPCAMConfig,
    state: TrainState,
    source: RecordSource,
    all_directions: Sequence[jax.Array],
    *,
    devices: Mesh,
) -> tuple[int, list[dict[str, Any]], list[str]]:
    """Score CAM, and LPCAM with many sets of directions, in one pass over the pictures.

    Args:
        config: the run's config.
        state: the trained classifier.
        source: labelled pictures; those without a mask, or with only ignored pixels in it, are left out.
        all_directions: float (c, d) each, see `prototype_activation.directions`.
        devices: the mesh.

    Returns:
        (number of scored pictures, [`SeedScoring.report` of CAM, then of each of all_directions], one line for every
        picture that could not be read).
    """
    classes = len(source.class_names)
    network = inference_network(config, state, classes, devices=devices)
    stride = network_of(config, classes).backbone.strides[-1]
    stacked = jnp.concatenate([jnp.asarray(array) for array in all_directions])
    scoring = [SeedScoring(classes) for _ in range(1 + len(all_directions))]
    epsilons = [EPSILON["cam"], *[EPSILON["lpcam"]] * len(all_directions)]
    scored, skipped = 0, []
    results = network.run(
        maps_of_all,
        source,
        scales=config.inference.scales,
        batches=config.inference,
        constants=[stacked],
        description="maps",
    )
    with ThreadPoolExecutor() as pool:
        for _, record, outputs in results:
            if isinstance(record, UserError):
                skipped.append(str(record))
                continue
            if record.mask is None or (record.mask == IGNORE).all():
                continue
            scored += 1
            present, size = np.flatnonzero(record.labels), record.image.shape[:2]
            extent = grid_extent(size, stride=stride, longest=network.longest)

            def count(number, record=record, outputs=outputs, present=present, size=size, extent=extent):
                columns = number * classes + present
                scales = [output["maps"][..., columns] for output in outputs]
                maps = finished_maps(scales, size, extent=extent, epsilon=epsilons[number])
                scoring[number].add(np.moveaxis(maps, 0, -1), present, record.mask)

            list(pool.map(count, range(len(scoring))))
    return scored, [accumulator.report() for accumulator in scoring], skipped


def maps_of_all(model: Classifier, pictures: jax.Array, sizes: jax.Array, stacked: jax.Array) -> Outputs:
    """CAM of c classes, then LPCAM with m sets of directions (m c, d): float32 (b, h', w', c + m c)."""
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    maps = [cam_of_pair(straight, mirrored, model.head[...]), lpcam(straight + mirrored, stacked)]
    return {"maps": jnp.concatenate(maps, axis=-1)}
