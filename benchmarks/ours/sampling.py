"""Sampling and clustering the local features of so many small pictures."""

import dataclasses
import resource

import jax

from benchmarks.contestant import Ready
from benchmarks.flat_memory import CONFIG
from lpcam_jax import cluster_classes
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine import devices
from lpcam_jax.systems.lpcam.feature_sampling import sample_features
from lpcam_jax.systems.lpcam.training import classifier_optimizer
from lpcam_jax.training.state import initial_state, network_of


def stage(pictures: int) -> Ready:
    """Drawn scenes, a small random network, K = 12; memory is the peak of the process."""
    config = dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, scenes=pictures))
    source, mesh = seed_source(config), devices.mesh()
    devices.remember_compilations()
    classes = len(source.class_names)
    optimizer = classifier_optimizer(config.training, network_of(config, classes), steps=1)
    state = jax.jit(lambda: initial_state(config, classes, optimizer))()
    facts = {}

    def run():
        threshold = config.prototypes.threshold
        (sample,) = sample_features(config, state, source, thresholds=(threshold,), devices=mesh)
        for context in (False, True):
            points, weights = sample.points(context=context)
            for n in range(len(points)):
                cluster_classes(jax.random.key(0), points[n : n + 1], weights[n : n + 1]).means.block_until_ready()
        facts["peak memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    return Ready(run, facts=facts)
