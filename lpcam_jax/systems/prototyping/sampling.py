"""Bounded samples of the local features of every class and every context, over all pictures.

pictures -> CAM (several scales) -> split of the features (scale 1, no mirror image) -> `FeatureSample`

Memory holds only the sample and the pictures of a few batches, however many pictures there are. With several processes
each samples its share of the pictures, and their samples are merged.
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ...data.records import RecordSource
from ...data.resizing import shrunk_size
from ...inference.passes import run_passes
from ...inference.plan import Pass
from ...local_features import FeatureSample, split
from ...machine import processes
from ...machine.errors import UserError
from ...machine.threads import map_ahead
from ...training.checkpoints import TrainState
from ...training.state import inference_network
from .clustered import Clustered


def sample_features(
    config: Any,
    state: TrainState,
    source: RecordSource,
    clustered: Clustered,
    *,
    thresholds: Sequence[float],
    devices: Mesh,
) -> list[FeatureSample]:
    """Sample the features of every class and every context (`local_features`), at each threshold.

    Args:
        config: the run's config, with `prototypes`, a `config.Clustering`.
        state: the trained network.
        source: labelled pictures; those that cannot be read are left out and reported.
        clustered: what of its network is clustered.
        thresholds: values of tau.
        devices: the mesh of this process.

    Returns:
        A FeatureSample for each threshold, over the pictures of all processes.

    Raises:
        UserError: no picture has a class, or none with one could be read.
    """
    settings = config.prototypes
    network = inference_network(config, state, len(source.class_names), devices=devices)
    at_scale = {True: network.forward(clustered.features), False: network.forward(clustered.cam)}
    scales = sorted({1.0, *clustered.scales})
    passes = [Pass(scale, at_scale[scale == 1.0], longest=network.longest) for scale in scales]
    dimension = len(clustered.weights)
    samples = [
        FeatureSample(len(source.class_names), dimension, size=settings.sample, seed=config.seed) for _ in thresholds
    ]
    size = sum(sample.nbytes for sample in samples) / 2**20
    tqdm.write(
        f"features: at most {settings.sample:,} of each class and of its context are kept, {size:,.0f} MiB of memory "
        "(--prototypes.sample)"
    )
    drawn = draw_pictures(source.labels, settings.pictures, seed=config.seed)
    only = np.flatnonzero(drawn.any(axis=1))
    if not len(only):
        raise UserError(f"none of the {len(source)} pictures to cluster has a class; choose others with --data.seeds.")
    results = run_passes(
        passes,
        source,
        batches=config.inference,
        devices=devices,
        description="features",
        only=processes.share(only),
    )

    def split_features(item: tuple) -> tuple:
        """Of a picture: index, None or the error, features, and for each class and threshold which of them to add."""
        index, record, outputs = item
        if isinstance(record, UserError):
            return index, record, None, []
        features, selected = outputs[scales.index(1.0)]["features"], []
        size = shrunk_size(record.image.shape[:2], network.longest)
        for n in np.flatnonzero(drawn[index]).tolist():
            maps = [
                output["cam"][..., n : n + 1]
                for output, scale in zip(outputs, scales, strict=True)
                if scale in clustered.scales
            ]
            on_grid = clustered.on_grid(maps, size, features.shape[:2])
            selected.append((n, [split(on_grid, threshold=threshold) for threshold in thresholds]))
        return index, None, features, selected

    read, skipped = 0, []
    for index, error, features, selected in map_ahead(split_features, results):
        if error:
            skipped.append(str(error))
            continue
        read += 1
        for n, at_thresholds in selected:
            for sample, parts in zip(samples, at_thresholds, strict=True):
                for context, part in enumerate(parts):
                    for _ in range(drawn[index, n]):
                        sample.add(index, features, n, part, context=bool(context))
    for line in chain(*processes.gather_values(skipped)):
        tqdm.write(f"skipped: {line}")
    if not sum(processes.gather_values(read)):
        raise UserError(f"none of the {len(only)} pictures with a class could be read; see the lines above.")
    if processes.are_several():
        for sample in samples:
            _merge_processes(sample)
    return samples


def _merge_processes(sample: FeatureSample) -> None:
    """Merge the samples of all processes, on every process."""
    for n in range(sample.classes):
        for context in (False, True):
            parts = zip(*map(processes.gather, sample.part(n, context=context)), strict=True)
            for process, part in enumerate(parts):
                if process != jax.process_index():
                    sample.unite(n, part, context=context)
    sample.seen = np.sum(processes.gather(sample.seen), axis=0)


def draw_pictures(labels: np.ndarray, count: int | None, *, seed: int) -> np.ndarray:
    """How often the features of each picture are used for each class.

    Args:
        labels: 0/1 (n, c).
        count: pictures to draw for each class among those that have it, with replacement; None: each picture once.
        seed: random seed.

    Returns:
        int (n, c).

    Source: reference step "make_lpcam" on COCO, with 100 pictures per class; a picture drawn twice counts twice.
    """
    if count is None:
        return labels.astype(int)
    drawn = np.zeros(labels.shape, int)
    for n in range(labels.shape[1]):
        having = np.flatnonzero(labels[:, n])
        if len(having):
            np.add.at(drawn[:, n], np.random.default_rng([seed, n]).choice(having, count), 1)
    return drawn
