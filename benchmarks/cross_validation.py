"""LPCAM-A and LPCAM-T beside LPCAM and CAM on pictures that they did not learn from: five folds, clustering seeds.

    python -m benchmarks.cross_validation --ckpt runs/voc_animals --root DIR --out .bench/folds
    python -m benchmarks.cross_validation --ckpt runs/voc_animals --root DIR --out .bench/folds --untaught

Features of all pictures are computed once and kept in memory. Then, for every seed and fold: prototypes, refined seeds,
taught directions and the threshold come from the other four folds; the pictures of the fold are scored. Beside it the
usual protocol: all pictures, learned from and scored; and what limits LPCAM-T: the same taught by the seeds as they
are, by its own refined seeds once more, and by the true masks. --untaught is LPCAM and LPCAM-A alone, a fourth of the
time. What was counted is kept in --out, so that the command goes on where it was stopped. Prints Markdown for SEEDS.md.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from benchmarks.held_out import Held, report_held, report_whole
from lpcam_jax import Prototypes, directions, select_prototypes
from lpcam_jax.class_activation import resize_nearest
from lpcam_jax.clustering import unit
from lpcam_jax.data.sources import seed_source
from lpcam_jax.inference.forward import mirrored_back, with_mirror_images
from lpcam_jax.inference.passes import run_passes
from lpcam_jax.inference.plan import Outputs, Pass
from lpcam_jax.local_features import FeatureSample, split
from lpcam_jax.machine import devices as machine
from lpcam_jax.machine.errors import UserError
from lpcam_jax.refine.pictures import crf_labels, cut
from lpcam_jax.results.counts import SeedScoring
from lpcam_jax.systems.lpcam.config import LPCAMConfig
from lpcam_jax.systems.lpcam.maps import cam_of_pair, on_picture
from lpcam_jax.systems.lpcam.network import Classifier
from lpcam_jax.systems.lpcam.sensitivity import cluster_sets
from lpcam_jax.systems.lpcam.spreading import guide, spread_over_picture
from lpcam_jax.systems.lpcam.teaching import Lesson, blank_lesson, teach
from lpcam_jax.systems.lpcam.teaching_stage import target_of
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import inference_network, network_of, trained_state

FOLDS = 5
TITLES = {
    "LPCAM": "lpcam_maps",
    "LPCAM-A": "lpcam_spread",
    "LPCAM-T": "taught_maps",
    "LPCAM-A of LPCAM-T": "taught_spread",
}
# What limits it: taught by these, of all pictures, with the first seed.
LIMITS = {
    "seeds": "taught by LPCAM's seeds, no CRF",
    "again": "taught twice",
    "truth": "taught by the true masks",
    "spread": "taught by LPCAM-A's seeds, no CRF",
    "spread_again": "taught by LPCAM-A's seeds, twice",
}


class Picture(NamedTuple):
    """What is kept of a picture.

    image, truth: uint8 (H, W, 3), (H, W)
    classes:      int (n,), its labels
    features:     for each scale float16 (h, w, d), unit, those of the mirror image added
    straight:     float16 (h, w, d), the features that are clustered
    splits:       float32 (h, w, n), the CAM that splits them
    cam:          float32 (H, W, n), the one that is scored
    guide:        what evidence spreads along, at scale 1 (`spreading.guide`)
    """

    image: np.ndarray
    truth: np.ndarray
    classes: np.ndarray
    features: list[np.ndarray]
    straight: np.ndarray
    splits: np.ndarray
    cam: np.ndarray
    guide: Outputs


class Study:
    """The pictures of a run, and how to learn from some of them."""

    def __init__(self, run: Run, config: LPCAMConfig, devices: Mesh):
        state = trained_state(run, devices=devices)
        self.config, self.devices, self.class_names = config, devices, run.class_names
        self.head = np.asarray(state.parameters["head"])
        self.stride = network_of(config, len(run.class_names)).backbone.strides[-1]
        self.pictures = _gather(config, state, devices, len(self.class_names), stride=self.stride)
        classes, dimension = len(self.class_names), self.head.shape[0]
        sizes = [one.truth.shape for one in self.pictures]
        options = {"stride": self.stride, "classes": classes, "dimension": dimension}
        self.lesson = blank_lesson(sizes, config.inference.scales, **options)
        self.truth = [target_of(one.truth, 1 + classes, stride=self.stride) for one in self.pictures]
        for slot, (one, truth) in enumerate(zip(self.pictures, self.truth, strict=True)):
            self.lesson.write(slot, one.features, np.isin(np.arange(classes), one.classes), truth)

    def lpcam(self, chosen: Sequence[int], seed: int) -> np.ndarray:
        """LPCAM's directions, (c, d), from the chosen pictures."""
        return np.asarray(directions(self.prototypes(chosen, seed, clusters=self.config.prototypes.clusters)))

    def prototypes(self, chosen: Sequence[int], seed: int, *, clusters: int) -> Prototypes:
        """The prototypes from the chosen pictures."""
        settings = self.config.prototypes
        sample = FeatureSample(len(self.class_names), self.head.shape[0], size=settings.sample, seed=seed)
        for index in chosen:
            one = self.pictures[index]
            for k, n in enumerate(one.classes):
                for context, weights in enumerate(split(one.splits[..., k], threshold=settings.threshold)):
                    sample.add(int(index), one.straight, int(n), np.asarray(weights), context=bool(context))
        sets = [sample.points(context=context) for context in (False, True)]
        options = {"clusters": clusters, "update": settings.update, "restarts": settings.restarts}
        means = cluster_sets(sets, seed, devices=self.devices, **options)
        return select_prototypes(*means, self.head, mu_f=settings.mu_f, context=settings.context)

    def maps(self, made: np.ndarray, index: int) -> np.ndarray:
        """Those of one picture, (H, W, n)."""
        one = self.pictures[index]
        scales = [np.maximum(features.astype(np.float32) @ made[one.classes].T, 0) for features in one.features]
        return on_picture(scales, one.truth.shape, stride=self.stride, epsilon=0.0)

    def spread(self, made: np.ndarray, index: int) -> np.ndarray:
        """LPCAM-A's of one picture, (H, W, n)."""
        one = self.pictures[index]
        evidence = [features.astype(np.float32) @ made[one.classes].T for features in one.features]
        return np.moveaxis(spread_over_picture(evidence, one.guide, one.truth.shape), 0, -1)

    def taught(
        self, start: np.ndarray, by: np.ndarray, chosen: Sequence[int], seed: int, *, teacher: str
    ) -> np.ndarray:
        """Directions that start from LPCAM's; the teacher is "truth", the "seeds" of `by`, these after a "crf", or
        LPCAM-A's ("spread")."""

        def target(index: int) -> np.ndarray:
            if teacher == "truth":
                return self.truth[index]
            one = self.pictures[index]
            maps = self.spread(by, index) if teacher == "spread" else self.maps(by, index)
            labels = cut(np.moveaxis(maps, -1, 0), self.config.inference.background)
            if teacher == "crf":
                labels = crf_labels(one.image, [labels], 1 + len(one.classes))[0]
            return target_of(np.append(0, 1 + one.classes)[labels], 1 + len(start), stride=self.stride)

        targets = np.zeros((len(chosen), *self.lesson.targets.shape[1:]), np.float32)
        for slot, one in zip(targets, _in_threads(target, chosen, f"{teacher} teaches"), strict=True):
            slot[tuple(map(slice, one.shape))] = one
        lesson: Lesson = jax.tree.map(lambda leaf: leaf[chosen], self.lesson)
        return teach(start, lesson._replace(targets=targets), seed=seed)

    def counts(self, maps: Callable[[int], np.ndarray]) -> np.ndarray:
        """Confusion matrices of the seeds of every picture at all thresholds, float32 (n, 100, 1 + c, 1 + c)."""

        def count(index: int) -> np.ndarray:
            scoring, one = SeedScoring(len(self.class_names)), self.pictures[index]
            scoring.add(maps(index), one.classes, one.truth)
            return scoring.matrices.astype(np.float32)

        return np.stack(_in_threads(count, range(len(self.pictures)), "scoring"))


def features_and_cam(model: Classifier, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """What is kept of padded pictures: see `Picture`."""
    images, extents = with_mirror_images(model, pictures, sizes)
    stages = model.backbone(images, extents)
    straight, mirrored = mirrored_back(stages[-1].astype(jnp.float32), model.grid_sizes(extents))
    return guide(model.backbone, stages, extents, pictures) | {
        "unit": unit(straight + mirrored).astype(jnp.float16),
        "straight": straight.astype(jnp.float16),
        "cam": cam_of_pair(straight, mirrored, model.head[...]),
    }


def _gather(config: LPCAMConfig, state, devices: Mesh, classes: int, *, stride: int) -> list[Picture]:
    """Features and CAMs of the pictures that have a mask and a label."""
    source = seed_source(config)
    # One for all: scales share batches.
    at_scale = inference_network(config, state, classes, devices=devices).forward(features_and_cam)
    scales = sorted({1.0, *config.prototypes.cam_scales, *config.inference.scales})
    results = run_passes(
        [Pass(scale, at_scale) for scale in scales],
        source,
        batches=config.inference,
        devices=devices,
        description="features",
    )
    found = {}
    for index, record, outputs in results:
        if isinstance(record, UserError):
            continue
        labels = np.flatnonzero(record.labels)
        if record.mask is None or not len(labels):
            continue
        of_scale = dict(zip(scales, outputs, strict=True))
        split_by, scored = (
            on_picture(
                [of_scale[scale]["cam"][..., labels] for scale in chosen],
                record.image.shape[:2],
                stride=stride,
            )
            for chosen in (config.prototypes.cam_scales, config.inference.scales)
        )
        features = [of_scale[scale]["unit"].copy() for scale in config.inference.scales]
        straight = of_scale[1.0]["straight"].copy()
        splits = resize_nearest(split_by, straight.shape[:2])
        along = {name: of_scale[1.0][name].copy() for name in ("features", "colours", "reach")}
        found[index] = Picture(record.image, record.mask, labels, features, straight, splits, scored, along)
    return [found[index] for index in sorted(found)]


def _in_threads(function: Callable, indices: Sequence[int], description: str) -> list:
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(function, indices), total=len(indices), desc=description, unit="img", leave=False))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the --workdir of a run with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--seeds", type=int, default=3, help="clustering seeds (default 3)")
    parser.add_argument("--untaught", action="store_true", help="without LPCAM-T, and what limits it")
    parser.add_argument("--out", type=Path, required=True, help="folder for what was counted; of another run: another")
    arguments = parser.parse_args()
    machine.remember_compilations()
    run = Run.open(arguments.ckpt)
    data = dataclasses.replace(run.config.data, root=arguments.root or run.config.data.root)
    study = Study(run, dataclasses.replace(run.config, data=data), machine.mesh())
    everything = np.arange(len(study.pictures))
    folds = np.random.default_rng(0).permutation(len(everything)) % FOLDS
    arguments.out.mkdir(parents=True, exist_ok=True)

    def kept(name: str, measure: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        file = arguments.out / f"{name}.npz"
        if not file.exists():
            begin = time.perf_counter()
            values = measure()
            with file.with_suffix(".part").open("wb") as part:
                np.savez_compressed(part, **values)
            file.with_suffix(".part").rename(file)
            tqdm.write(f"{name}: {time.perf_counter() - begin:.0f} s")
        with np.load(file, allow_pickle=False) as values:
            return dict(values)

    def kept_of(name: str, chosen: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        lpcam = kept(f"{name}_lpcam", lambda: learned(study.lpcam(chosen, seed)))
        start = lpcam["directions"]
        taught = (
            {}
            if arguments.untaught
            else kept(f"{name}_taught", lambda: learned(study.taught(start, start, chosen, seed, teacher="crf")))
        )
        return {f"lpcam_{key}": one for key, one in lpcam.items()} | {
            f"taught_{key}": one for key, one in taught.items()
        }

    def learned(made: np.ndarray) -> dict[str, np.ndarray]:
        counts = {"maps": study.counts(partial(study.maps, made)), "spread": study.counts(partial(study.spread, made))}
        return counts | {"directions": made}

    def limit(name: str) -> dict[str, np.ndarray]:
        whole = kept_of("all_0", everything, 0)
        start = whole["lpcam_directions"]
        if name == "again":
            by, teacher = whole["taught_directions"], "crf"
        elif name == "spread_again":
            by, teacher = kept("spread", partial(limit, "spread"))["directions"], "spread"
        else:
            by, teacher = start, name
        return learned(study.taught(start, by, everything, 0, teacher=teacher))

    seeds = range(arguments.seeds)
    cams = kept("cam", lambda: {"cam": study.counts(lambda index: study.pictures[index].cam)})["cam"]
    whole = [kept_of(f"all_{seed}", everything, seed) for seed in seeds]
    limits = {} if arguments.untaught else LIMITS
    limits = {title: kept(name, partial(limit, name)) for name, title in limits.items()}
    folded = [
        [kept_of(f"fold_{seed}_{fold}", everything[folds != fold], seed) for fold in range(FOLDS)] for seed in seeds
    ]
    titles = {title: name for title, name in TITLES.items() if name in whole[0]}
    held = {"CAM": [Held([cams] * FOLDS, folds)]}
    held |= {
        title: [Held([one[name] for one in of_seed], folds) for of_seed in folded] for title, name in titles.items()
    }
    report_held(held, study.class_names)
    rows = {"CAM": [cams]} | {title: [one[name] for one in whole] for title, name in titles.items()}
    for title, counts in limits.items():
        rows |= {title: [counts["maps"]], f"{title}: LPCAM-A of it": [counts["spread"]]}
    report_whole(rows, study.class_names)


if __name__ == "__main__":
    main()
