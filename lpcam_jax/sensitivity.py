"""Seed quality over the method's parameters (paper, Figure 5): one is varied at a time, the others stay the run's own.

Two passes over the pictures, however many settings: one keeps a sample of local features for every tau; then each
(tau, K, seed) is clustered once; and because LPCAM is one direction a class, the second pass computes the maps of all
settings at once. mu_f and mu_b select among centres that are there, and the seed threshold is counted at all its
values: these cost nothing.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from . import config as config_module
from .class_activation import cam
from .clustering import unit
from .config import Config
from .data.masks import IGNORE
from .data.records import RecordSource
from .devices import jit_forward, replicate
from .inference import features_of_both, on_picture
from .local_features import FeatureSample
from .passes import Pass, run_passes
from .prototype_activation import directions
from .prototypes import Prototypes, select_prototypes
from .scoring import SeedScoring
from .training.checkpoints import TrainState
from .training.feature_sampling import sample_features
from .training.prototype_stage import cluster_in_groups
from .training.state import folded_network

GRIDS = {
    "threshold": (0.05, 0.1, 0.15, 0.2, 0.25, 0.3),
    "mu_f": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "mu_b": (0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
    "clusters": (4, 8, 12, 16, 20),
}


class Setting(NamedTuple):
    """The parameters of Figure 5; the seed threshold is none of them, every setting is scored at all.

    threshold: tau
    mu_f:      score a class prototype is above
    mu_b:      score a context prototype is below
    clusters:  K
    """

    threshold: float
    mu_f: float
    mu_b: float
    clusters: int


def own_setting(prototypes: config_module.Prototypes) -> Setting:
    """What a config has of the parameters."""
    return Setting(prototypes.threshold, prototypes.mu_f, prototypes.context[1], prototypes.clusters)


def settings_around(own: Setting) -> dict[str, list[Setting]]:
    """The settings that differ from `own` in one parameter, and itself: a list, ascending, for each of GRIDS."""
    return {
        parameter: [own._replace(**{parameter: value}) for value in sorted({*grid, getattr(own, parameter)})]
        for parameter, grid in GRIDS.items()
    }


def sweep_parameters(
    config: Config, state: TrainState, source: RecordSource, *, seeds: Sequence[int], devices: Mesh
) -> dict[str, Any]:
    """Score LPCAM at the grid of every parameter, and CAM.

    Args:
        config: of the run; its prototypes say the own values, and how features are sampled and clustered.
        state: the trained classifier.
        source: labelled pictures with masks: clustered and scored.
        seeds: of the clustering; the run's own seed gives its own prototypes.
        devices: the mesh.

    Returns:
        {"scored": pictures, "skipped": [lines], "cam": S, "lpcam": [S for every seed, at the own values], "settings":
        {parameter: [{"value", "own": whether it is the run's, "seeds": [S for every seed]}]}}, plain JSON values. S is
        `SeedScoring.report` without "confusion"; for LPCAM it has "class_prototypes" and "context_prototypes" too, how
        many each class kept.

    Raises:
        UserError: no picture could be read.
    """
    own = own_setting(config.prototypes)
    around = settings_around(own)
    settings = list(dict.fromkeys(setting for group in around.values() for setting in group))
    thresholds = sorted({setting.threshold for setting in settings})
    samples = sample_features(config, state, source, thresholds=thresholds, devices=devices)
    made = make_all(
        settings,
        seeds,
        dict(zip(thresholds, samples, strict=True)),
        state.parameters["head"],
        prototypes=config.prototypes,
        devices=devices,
    )
    skipped: list[str] = []
    scored, reports = score_directions(
        config, state, source, [directions(one) for one in made.values()], devices=devices, skipped=skipped
    )
    cam_report, *reports = ({key: one[key] for key in one if key != "confusion"} for one in reports)
    scores = {
        key: {
            **report,
            "class_prototypes": np.asarray(one.class_mask).sum(axis=1).tolist(),
            "context_prototypes": np.asarray(one.context_mask).sum(axis=1).tolist(),
        }
        for (key, one), report in zip(made.items(), reports, strict=True)
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
    prototypes: config_module.Prototypes,
    devices: Mesh,
) -> dict[tuple[Setting, int], Prototypes]:
    """The prototypes of every setting and seed; settings of the same tau and K share their centres.

    Args:
        settings: what to make.
        seeds: of the clustering.
        samples: tau -> the sample of its features; emptied as they are clustered, to bound the memory.
        weights: float (d, c), the classifier's head.
        prototypes: how to cluster, and the lower bound of a context prototype's score.
        devices: the mesh.

    Returns:
        {(setting, seed): Prototypes}.
    """
    groups: dict[float, dict[int, list[Setting]]] = {}
    for setting in settings:
        groups.setdefault(setting.threshold, {}).setdefault(setting.clusters, []).append(setting)
    made = {}
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
                        made[setting, seed] = select_prototypes(*means, weights, **bounds)
                    bar.update()
    return made


def cluster_sets(
    sets: Sequence[tuple[np.ndarray, np.ndarray]],
    seed: int,
    *,
    clusters: int,
    update: str,
    restarts: int,
    devices: Mesh,
) -> list[np.ndarray]:
    """Cluster the features of the classes and those of their contexts, as `make_prototypes` does with the same seed.

    Args:
        sets: (points float32 (c, n, d), weights float32 (c, n)) of the classes, then of the contexts.
        seed: of the clustering.
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
        np.concatenate([found.means for _, found in cluster_in_groups(key, *one, devices, **options)])
        for key, one in zip(keys, sets, strict=True)
    ]


def score_directions(
    config: Config,
    state: TrainState,
    source: RecordSource,
    all_directions: Sequence[jax.Array],
    *,
    devices: Mesh,
    skipped: list[str],
) -> tuple[int, list[dict[str, Any]]]:
    """Score CAM, and LPCAM with each of many sets of directions, in one pass over the pictures.

    Args:
        config: of the run.
        state: the trained classifier.
        source: labelled pictures; those without a mask, or with nothing but ignored pixels in it, are left out.
        all_directions: float (c, d) each, see `prototype_activation.directions`.
        devices: the mesh.
        skipped: gets one line for every picture that could not be read.

    Returns:
        (how many pictures were scored, [`SeedScoring.report` of CAM, then of each of all_directions]).
    """
    classes = len(source.class_names)
    graph, folded = folded_network(config, state, classes, devices=devices)

    @jit_forward
    def network(parameters, batch_stats, stacked, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        straight, mirrored, _ = features_of_both(model, pictures, sizes)
        weights = model.head[...]
        activation = jnp.einsum("...d,nd->...n", unit(straight + mirrored), stacked, precision="highest")
        maps = [cam(straight, weights) + cam(mirrored, weights), jax.nn.relu(activation)]
        return {"maps": jnp.concatenate(maps, axis=-1), "grid": model.backbone.grid_sizes(sizes)}

    stacked = replicate(jnp.concatenate([jnp.asarray(one) for one in all_directions]), devices)
    at_scale = partial(network, *folded, stacked)  # one for all: scales share batches
    passes = [Pass(scale, at_scale) for scale in config.inference.scales]
    scoring = [SeedScoring(classes) for _ in range(1 + len(all_directions))]
    scored = 0
    results = run_passes(passes, source, batches=config.inference, devices=devices, description="maps", skipped=skipped)
    with ThreadPoolExecutor() as pool:
        for _, record, outputs in results:
            if record.mask is None or (record.mask == IGNORE).all():
                continue
            scored += 1
            present = np.flatnonzero(record.labels)

            def count(number, record=record, outputs=outputs, present=present):
                columns = number * classes + present
                scales = [one["maps"][..., columns] for one in outputs]
                # As infer.py makes and stores them, so that the scores are the same.
                options = {"stride": config.model.output_stride} | ({"epsilon": 0.0} if number else {})
                maps = on_picture(scales, record.image.shape[:2], **options)
                scoring[number].add(maps.astype(np.float16), present, record.mask)

            list(pool.map(count, range(len(scoring))))
    return scored, [one.report() for one in scoring]
