"""Other ways to score a position by its prototypes than LPCAM's (Eq. 5 and 6), and other numbers of clusters.

    python -m benchmarks.scoring_rules --ckpt runs/voc_animals --split 'train.txt[:110]'

Features of the pictures are computed once, and clustered for each number; every rule's maps are scored at all
thresholds, all learned from and scored on the same pictures, with one clustering seed. Prints Markdown for SEEDS.md.
"""

import argparse
import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cross_validation import Picture, Study
from benchmarks.held_out import iou_of, report_whole
from lpcam_jax import Prototypes
from lpcam_jax.clustering import unit
from lpcam_jax.machine import devices as machine
from lpcam_jax.systems.lpcam.maps import on_picture
from lpcam_jax.training.run import Run

CLUSTERS = (4, 8, 12, 16, 24)

# (cosines of positions to the class's prototypes (m, k), to its context's (m, j), to all classes' contexts (m, i))
# -> what is for the class (m,)
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def mean(own: np.ndarray, context: np.ndarray, _: np.ndarray) -> np.ndarray:
    """LPCAM's: mean cosine to the class less that to its context."""
    return np.maximum(_average(own) - _average(context), 0)


def nearest(own: np.ndarray, context: np.ndarray, _: np.ndarray) -> np.ndarray:
    """The nearest prototype instead of the mean of all."""
    return np.maximum(own.max(axis=1, initial=0) - context.max(axis=1, initial=0), 0)


def key_value(own: np.ndarray, context: np.ndarray, _: np.ndarray, *, sharpness: float) -> np.ndarray:
    """exp(-b (1 - cos)) instead of the cosine, as in Tip-Adapter."""
    return np.maximum(_near(own, sharpness) - _near(context, sharpness), 0)


def share(own: np.ndarray, context: np.ndarray, every: np.ndarray, *, heat: float, background: str) -> np.ndarray:
    """The class's share of a softmax over prototypes: the context's are a column for who is nobody."""
    scores = np.exp(np.concatenate([own, context if background == "own" else every], axis=1) / heat)
    return scores[:, : own.shape[1]].sum(axis=1) / scores.sum(axis=1)


def transport(own: np.ndarray, context: np.ndarray, _: np.ndarray, *, heat: float, rounds: int = 3) -> np.ndarray:
    """The same share, of an assignment that gives every prototype as much as any other (Sinkhorn)."""
    plan = np.exp(np.concatenate([own, context], axis=1) / heat)
    for _ in range(rounds):
        plan /= plan.sum(axis=0, keepdims=True)
        plan /= plan.sum(axis=1, keepdims=True)
    return plan[:, : own.shape[1]].sum(axis=1)


def _average(cosines: np.ndarray) -> np.ndarray:
    return cosines.sum(axis=1) / max(cosines.shape[1], 1)


def _near(cosines: np.ndarray, sharpness: float) -> np.ndarray:
    return _average(np.exp(-sharpness * (1 - cosines)))


RULES: dict[str, Rule] = {
    "the nearest prototype of each side": nearest,
    **{f"key-value, exp(-{b}(1 - cos))": partial(key_value, sharpness=b) for b in (2, 5, 10)},
    **{f"softmax with its context, heat {t}": partial(share, heat=t, background="own") for t in (0.05, 0.1)},
    **{f"softmax with all contexts, heat {t}": partial(share, heat=t, background="all") for t in (0.05, 0.1)},
    **{f"Sinkhorn with its context, heat {t}": partial(transport, heat=t) for t in (0.05, 0.1)},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", required=True, help="the --workdir of a run with masks")
    parser.add_argument("--root", default="", help="where its data set is now")
    parser.add_argument("--split", default="", help="which pictures, as in --data.seeds (default: the run's)")
    arguments = parser.parse_args()
    machine.remember_compilations()
    run = Run.open(arguments.ckpt)
    data = run.config.data
    data = dataclasses.replace(data, root=arguments.root or data.root, seeds=arguments.split or data.seeds)
    study = Study(run, dataclasses.replace(run.config, data=data), machine.mesh())
    everything = np.arange(len(study.pictures))
    rows = {}
    for count in sorted({*CLUSTERS, study.config.prototypes.clusters}):
        prototypes = jax.device_get(study.prototypes(everything, 0, clusters=count))
        rows[f"LPCAM, {count} clusters"] = scored(study, prototypes, mean)
        if count == study.config.prototypes.clusters:
            others = {name: scored(study, prototypes, rule) for name, rule in RULES.items()}
    print(f"\n{len(everything)} pictures")
    report_whole({name: [counts] for name, counts in (rows | others).items()}, study.class_names)
    at_best = [iou_of(counts.sum(axis=0, dtype=np.float64)) for counts in rows.values()]
    of_classes = np.stack([one[one.mean(axis=-1).argmax()] for one in at_best]).max(axis=0)
    print(f"\nThe best number for each class, chosen by its true masks: {of_classes.mean():.1f}")


def scored(study: Study, prototypes: Prototypes, rule: Rule) -> np.ndarray:
    """Confusion matrices of all pictures and thresholds, of a rule's maps."""
    own, context = (
        [np.asarray(unit(jnp.asarray(centres[mask]))) for centres, mask in zip(*of_classes, strict=True)]
        for of_classes in (
            (prototypes.class_centres, prototypes.class_mask),
            (prototypes.context_centres, prototypes.context_mask),
        )
    )
    every = np.concatenate(context)

    def maps(index: int) -> np.ndarray:
        one: Picture = study.pictures[index]
        scales = []
        for stored in one.features:
            features = stored.reshape(-1, stored.shape[-1]).astype(np.float32)
            around = features @ every.T
            columns = [rule(features @ own[n].T, features @ context[n].T, around) for n in one.classes]
            scales.append(np.stack(columns, axis=-1).reshape(*stored.shape[:2], -1))
        return on_picture(scales, one.truth.shape, stride=study.stride, epsilon=0.0)

    return study.counts(maps)


if __name__ == "__main__":
    main()
