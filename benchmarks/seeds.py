"""Seed quality on the pictures of a trained run: CAM, LPCAM-F and LPCAM over k-means updates, K and seeds.

    python -m benchmarks.seeds --ckpt runs/voc_animals
    python -m benchmarks.seeds --ckpt runs/voc_animals --defaults    # the methods alone

Two passes over the pictures: one keeps every local feature; then all settings are clustered; and because LPCAM is one
direction a class, the second pass computes the maps of all settings at once. Prints Markdown for RESULTS.md.
"""

import argparse
import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from lpcam_jax import Prototypes, directions, select_prototypes, without_context
from lpcam_jax.config import Clustering
from lpcam_jax.data.sources import seed_source
from lpcam_jax.machine import devices as machine
from lpcam_jax.report.sweep import spread
from lpcam_jax.systems.lpcam.feature_sampling import sample_features
from lpcam_jax.systems.lpcam.sensitivity import cluster_sets, score_directions
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state


class Setting(NamedTuple):
    """One way to make prototypes."""

    update: str = "spherical"
    clusters: int = 12
    sample: int = 8192
    restarts: int = 1
    low: float | None = None
    use_context: bool = True

    def __str__(self) -> str:
        kind = "LPCAM" if self.use_context else "LPCAM-F"
        size = f"{self.sample:,} features" if self.sample < EVERYTHING else "all features"
        bound = "" if self.low is None else f", lower context bound {self.low:g}"
        starts = "" if self.restarts == 1 else f", best of {self.restarts} starts"
        return f"{kind}, {self.update}, K = {self.clusters}, {size}{starts}{bound}"


EVERYTHING = 1 << 18
SETTINGS = [
    *(Setting(update=update, clusters=k) for update in ("spherical", "mean") for k in (4, 8, 12, 20)),
    Setting(use_context=False),
    Setting(low=-1.0),
    Setting(restarts=4),
    *(Setting(sample=size) for size in (128, 256, 512, 1024, 2048, 4096, 16384, 32768)),
    Setting(sample=EVERYTHING),
    Setting(update="mean", sample=EVERYTHING),
]
DEFAULTS = [Setting(update="spherical"), Setting(update="mean"), Setting(use_context=False)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the --workdir of a run with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--seeds", type=int, default=3, help="clustering seeds (default 3)")
    parser.add_argument("--defaults", action="store_true", help="only the methods, with the default settings")
    arguments = parser.parse_args()
    machine.remember_compilations()
    mesh = machine.mesh()
    run = Run.open(arguments.ckpt)
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    prototypes = dataclasses.replace(run.config.prototypes, sample=EVERYTHING)
    config = dataclasses.replace(run.config, data=data, prototypes=prototypes)
    source = seed_source(config)
    state = trained_state(run, devices=mesh)

    (sample,) = sample_features(config, state, source, thresholds=(prototypes.threshold,), devices=mesh)
    features = [sample.points(context=context) for context in (False, True)]
    del sample
    settings = DEFAULTS if arguments.defaults else SETTINGS
    jobs = [(setting, seed) for setting in settings for seed in range(arguments.seeds)]
    made = [
        make(setting, seed, features, state.parameters["head"], prototypes, mesh)
        for setting, seed in tqdm(jobs, desc="clustering")
    ]
    del features
    _, scores, _ = score_directions(config, state, source, [directions(one) for one in made], devices=mesh)
    report(run.class_names, settings, made, scores, arguments.seeds)


def make(setting: Setting, seed: int, features: list, weights: jax.Array, own: Clustering, devices: Mesh) -> Prototypes:
    """The prototypes of one setting; what it does not say is the run's own."""
    if setting.sample < EVERYTHING:
        features = [draw(*one, setting.sample, seed) for one in features]
    options = {"clusters": setting.clusters, "update": setting.update, "restarts": setting.restarts}
    means = cluster_sets(features, seed, devices=devices, **options)
    low, high = own.context
    context = low if setting.low is None else setting.low, high
    prototypes = select_prototypes(*means, weights, mu_f=own.mu_f, context=context)
    return prototypes if setting.use_context else without_context(prototypes)


def draw(points: np.ndarray, weights: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `size` of the rows that exist, of each class: (c, n, d), (c, n) -> (c, size, d), (c, size)."""
    drawn, drawn_weights = np.zeros((len(points), size, points.shape[2]), np.float32), np.zeros((len(points), size))
    for n in range(len(points)):
        rows = np.random.default_rng([seed, n]).permutation(int(weights[n].sum()))[:size]
        drawn[n, : len(rows)], drawn_weights[n, : len(rows)] = points[n, rows], 1
    return drawn, drawn_weights.astype(np.float32)


def report(class_names, settings, made, scores, seeds) -> None:
    """Print the Markdown."""
    columns = "| method | mIoU at best | threshold | mIoU at 0.3 | FP | FN | precision | recall |"
    print(f"{columns}\n|---|---|---|---|---|---|---|---|")
    groups = [("CAM", scores[:1])]
    groups += [(str(s), scores[1 + i * seeds : 1 + (i + 1) * seeds]) for i, s in enumerate(settings)]
    for name, group in groups:
        best, fixed = ([one[kind] for one in group] for kind in ("best", "fixed"))
        cells = [
            spread([one["miou"] for one in best]),
            f"{np.mean([one['threshold'] for one in best]):.2f}",
            spread([one["miou"] for one in fixed]),
            *(f"{100 * np.mean([one[key] for one in best]):.1f}" for key in ("fp", "fn", "precision", "recall")),
        ]
        print(f"| {name} | {' | '.join(cells)} |")

    print(f"\nIoU of each class at the best threshold, mean of {seeds} seeds:\n")
    print(f"| method | background | {' | '.join(class_names)} |\n|---|{'---|' * (1 + len(class_names))}")
    for name, group in groups:
        means = 100 * np.mean([one["best"]["iou"] for one in group], axis=0)
        print(f"| {name} | {' | '.join(f'{value:.1f}' for value in means)} |")

    print(f"\nPrototypes kept, class / context, mean of {seeds} seeds:\n")
    print(f"| method | {' | '.join(class_names)} |\n|---|{'---|' * len(class_names)}")
    for i, setting in enumerate(settings):
        kept = made[i * seeds : (i + 1) * seeds]
        of_class = np.mean([one.class_mask.sum(axis=1) for one in kept], axis=0)
        of_context = np.mean([one.context_mask.sum(axis=1) for one in kept], axis=0)
        cells = (f"{a:.1f} / {b:.1f}" for a, b in zip(of_class, of_context, strict=True))
        print(f"| {setting} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
