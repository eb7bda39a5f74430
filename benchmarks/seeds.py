"""Seed quality on the pictures of a trained run: CAM, LPCAM-F and LPCAM over k-means updates, K and seeds.

    python -m benchmarks.seeds --ckpt runs/voc_animals

Two passes over the pictures: one keeps every local feature; then all settings are clustered; and because LPCAM is one
direction a class, the second pass computes the maps of all settings at once. Prints Markdown for RESULTS.md.
"""

import argparse
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from lpcam_jax import (
    cam,
    class_scores,
    cluster_classes,
    directions,
    fuse,
    normalize,
    select_prototypes,
    unit,
    without_context,
)
from lpcam_jax import devices as machine
from lpcam_jax.data.sources import seed_source
from lpcam_jax.inference import Pass, features_of_both, run_passes
from lpcam_jax.scoring import SeedScoring
from lpcam_jax.training.checkpoints import Run
from lpcam_jax.training.prototype_stage import sample_features
from lpcam_jax.training.state import graph_of, trained_state


class Setting(NamedTuple):
    """One way to make prototypes."""

    update: str = "spherical"
    clusters: int = 12
    sample: int = 8192
    restarts: int = 1
    low: float = 0.05
    use_context: bool = True

    def __str__(self) -> str:
        kind = "LPCAM" if self.use_context else "LPCAM-F"
        size = f"{self.sample:,} features" if self.sample < EVERYTHING else "all features"
        bound = "" if self.low == 0.05 else f", lower context bound {self.low:g}"
        starts = "" if self.restarts == 1 else f", best of {self.restarts} starts"
        return f"{kind}, {self.update}, K = {self.clusters}, {size}{starts}{bound}"


EVERYTHING = 1 << 20
SETTINGS = [
    *(Setting(update=update, clusters=k) for update in ("spherical", "mean") for k in (4, 8, 12, 20)),
    Setting(use_context=False),
    Setting(low=-1.0),
    Setting(restarts=4),
    Setting(sample=2048),
    Setting(sample=EVERYTHING),
    Setting(update="mean", sample=EVERYTHING),
]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the --workdir of a run with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--seeds", type=int, default=3, help="clustering seeds (default 3)")
    arguments = parser.parse_args()
    machine.start()
    mesh = machine.mesh()
    run = Run.open(arguments.ckpt)
    root = arguments.root or run.config.data.root
    source = seed_source(dataclasses.replace(run.config, data=dataclasses.replace(run.config.data, root=root)))
    state = trained_state(run, devices=mesh)
    weights = state.parameters["head"]

    everything = dataclasses.replace(run.config.prototypes, sample=EVERYTHING)
    full = Run(run.directory, dataclasses.replace(run.config, prototypes=everything), run.class_names)
    points = [sample_features(full, state, source, devices=mesh).points(context=context) for context in (False,)]
    del points
