"""Seed quality on the pictures of a trained run: CAM, LPCAM-F and LPCAM over k-means updates, K and seeds.

    python -m benchmarks.seeds --ckpt runs/voc_animals

Two passes over the pictures: one keeps every local feature; then all settings are clustered; and because LPCAM is one
direction a class, the second pass computes the maps of all settings at once. Prints Markdown for RESULTS.md.
"""

import argparse
import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from tqdm import tqdm

from lpcam_jax import (
    Prototypes,
    cam,
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
from lpcam_jax.inference import features_of_both
from lpcam_jax.passes import Pass, run_passes
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
    machine.remember_compilations()
    mesh = machine.mesh()
    run = Run.open(arguments.ckpt)
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    prototypes = dataclasses.replace(run.config.prototypes, sample=EVERYTHING)
    config = dataclasses.replace(run.config, data=data, prototypes=prototypes)
    source = seed_source(config)
    state = trained_state(run, devices=mesh)

    sample = sample_features(config, state, source, devices=mesh)
    features = [sample.points(context=context) for context in (False, True)]
    del sample
    jobs = [(setting, seed) for setting in SETTINGS for seed in range(arguments.seeds)]
    made = [make(setting, seed, features, state.parameters["head"]) for setting, seed in tqdm(jobs, desc="clustering")]
    del features
    scores = score(config, state, source, [np.asarray(directions(one)) for one in made], mesh)
    report(run.class_names, made, scores, arguments.seeds)


def make(setting: Setting, seed: int, features: list, weights: jax.Array) -> Prototypes:
    """The prototypes of one setting."""
    means = []
    for context, (points, point_weights) in enumerate(features):
        if setting.sample < EVERYTHING:
            points, point_weights = draw(points, point_weights, setting.sample, seed)
        key = jax.random.fold_in(jax.random.key(seed), context)
        options = {"k": setting.clusters, "update": setting.update, "restarts": setting.restarts}
        means.append(cluster_classes(key, points, point_weights, **options).means)
    prototypes = select_prototypes(*means, weights, context=(setting.low, 0.9))
    return prototypes if setting.use_context else without_context(prototypes)


def draw(points: np.ndarray, weights: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """At most `size` of the rows that exist, of each class: (c, n, d), (c, n) -> (c, size, d), (c, size)."""
    drawn, drawn_weights = np.zeros((len(points), size, points.shape[2]), np.float32), np.zeros((len(points), size))
    for n in range(len(points)):
        rows = np.random.default_rng([seed, n]).permutation(int(weights[n].sum()))[:size]
        drawn[n, : len(rows)], drawn_weights[n, : len(rows)] = points[n, rows], 1
    return drawn, drawn_weights.astype(np.float32)


def score(config, state, source, all_directions, mesh) -> list[dict]:
    """The report of CAM, then of every setting, from one pass over the pictures."""
    classes = len(source.class_names)
    stacked = jnp.asarray(np.concatenate(all_directions))
    graph, *_ = graph_of(config, classes)

    @machine.jit_forward
    def network(parameters, batch_stats, stacked, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        straight, mirrored, _ = features_of_both(model, pictures, sizes)
        weights = model.head[...]
        activation = jax.nn.relu(jnp.einsum("...d,nd->...n", unit(straight + mirrored), stacked))
        maps = jnp.concatenate([cam(straight, weights) + cam(mirrored, weights), activation], axis=-1)
        return {"maps": maps, "grid": model.backbone.grid_sizes(sizes)}

    passes = [
        Pass(scale, partial(network, state.parameters, state.batch_stats, stacked)) for scale in config.inference.scales
    ]
    scoring = [SeedScoring(classes) for _ in range(1 + len(all_directions))]
    results = run_passes(passes, source, inference=config.inference, devices=mesh, description="maps", skipped=[])
    for _, record, outputs in results:
        present = np.flatnonzero(record.labels)
        for number, one in enumerate(scoring):
            columns = number * classes + present
            fused = fuse([scale["maps"][..., columns] for scale in outputs], record.image.shape[:2])
            one.add(normalize(fused).astype(np.float16), present, record.mask)
    return [one.report() for one in scoring]


def report(class_names, made, scores, seeds) -> None:
    """Print the Markdown."""
    columns = "| method | mIoU at best | threshold | mIoU at 0.3 | FP | FN | precision | recall |"
    print(f"{columns}\n|---|---|---|---|---|---|---|---|")
    groups = [("CAM", scores[:1])]
    groups += [(str(s), scores[1 + i * seeds : 1 + (i + 1) * seeds]) for i, s in enumerate(SETTINGS)]
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
    for i, setting in enumerate(SETTINGS):
        kept = made[i * seeds : (i + 1) * seeds]
        of_class = np.mean([one.class_mask.sum(axis=1) for one in kept], axis=0)
        of_context = np.mean([one.context_mask.sum(axis=1) for one in kept], axis=0)
        cells = (f"{a:.1f} / {b:.1f}" for a, b in zip(of_class, of_context, strict=True))
        print(f"| {setting} | {' | '.join(cells)} |")


def spread(values: list[float]) -> str:
    """Mean of fractions in percent and, of several, the standard deviation."""
    deviation = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
