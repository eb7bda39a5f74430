"""The teaching stage after the prototypes: one direction per class is learned from refined seeds of some pictures.

features of all scales -> LPCAM -> seeds -> CRF, or LPCAM-A -> seeds -> `Lesson` -> `teach`

A further round refines the seeds of what was learned in the one before; learning begins at LPCAM's directions each
time. The features of these pictures are in memory together, which limits their number.
"""

from contextlib import suppress
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from ...clustering import unit
from ...data.records import Record, RecordSource
from ...data.resizing import resize_bicubic, shrunk_size
from ...inference.canvas import grid_extent
from ...inference.finish import finished_maps
from ...inference.forward import mirrored_back, with_mirror_images
from ...inference.plan import Outputs
from ...machine import processes
from ...machine.errors import UserError
from ...prototype_activation import directions, evidence
from ...prototypes import Prototypes
from ...refine.pictures import crf_labels, cut
from ...results.folder import write_all
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, network_of
from .config import LPCAMConfig
from .maps import features_of_both
from .network import Classifier
from .spreading import guide, spread_over_picture
from .teaching import Lesson, blank_lesson, teach

_STEPS = 60


def teach_directions(
    run: Run, state: TrainState, prototypes: Prototypes, source: RecordSource, *, devices: Mesh
) -> np.ndarray:
    """Train directions with `teaching`, starting from LPCAM's: the first process does, which needs the memory once.

    Args:
        run: the run, for its config.
        state: the trained classifier.
        prototypes: LPCAM's prototypes.
        source: labelled pictures, of which `config.prototypes.taught` are used.
        devices: the mesh of this process.

    Returns:
        float32 (c, d), of length 1, or 0 where LPCAM's direction is 0; on every process.

    Raises:
        UserError: none of these pictures could be read.
    """
    start = np.asarray(directions(prototypes))
    taught = _taught(run.config, state, start, source, devices=devices) if processes.is_first() else start
    return processes.gather(np.asarray(taught, np.float32))[0]


def _taught(
    config: LPCAMConfig, state: TrainState, start: np.ndarray, source: RecordSource, *, devices: Mesh
) -> np.ndarray:
    sizes = {}
    for index in choose_pictures(source.labels, config.prototypes.taught, seed=config.seed):
        with suppress(UserError):  # feature sampling has reported the unreadable ones
            sizes[index] = shrunk_size(source.size(index), config.data.longest)
    unreadable = "none of the pictures to learn from could be read; see the lines above, or raise --prototypes.taught."
    if not sizes:
        raise UserError(unreadable)
    slots = {index: slot for slot, index in enumerate(sizes)}
    stride = network_of(config, len(start)).backbone.strides[-1]
    options = {"stride": stride, "classes": len(start), "dimension": start.shape[1]}
    lesson = blank_lesson(list(sizes.values()), config.inference.scales, **options)
    mebibytes = sum(leaf.nbytes for leaf in jax.tree.leaves(lesson)) / 2**20
    tqdm.write(f"teaching: {len(slots)} pictures, {mebibytes:,.0f} MiB of memory (--prototypes.taught)")
    made = start
    for teacher in config.prototypes.teachers:
        _fill(lesson, slots, config, state, made, source, teacher=teacher, stride=stride, devices=devices)
        if not lesson.present.any():
            raise UserError(unreadable)
        with tqdm(total=_STEPS, desc="teaching", unit="step") as bar:

            def report(loss: float, bar: tqdm = bar) -> None:
                bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
                bar.update()

            made = teach(start, lesson, steps=_STEPS, seed=config.seed, report=report)
    return made


def _fill(
    lesson: Lesson,
    slots: dict[int, int],
    config: LPCAMConfig,
    state: TrainState,
    made: np.ndarray,
    source: RecordSource,
    *,
    teacher: Literal["crf", "affinity"],
    stride: int,
    devices: Mesh,
) -> None:
    """Fill the slot of each picture with its features and the refined seed of these directions."""
    network = inference_network(config, state, len(source.class_names), devices=devices)
    results = network.run(
        unit_features_and_evidence,
        source,
        scales=config.inference.scales,
        batches=config.inference,
        constants=[made],
        at_first=unit_features_evidence_and_guide if teacher == "affinity" else None,
        description="refined seeds",
        only=list(slots),
    )
    background = config.inference.background

    def write(index: int, record: Record, outputs: list[dict[str, np.ndarray]]) -> None:
        labels, size = np.flatnonzero(record.labels), shrunk_size(record.image.shape[:2], config.data.longest)
        scales = [scale["evidence"][..., labels] for scale in outputs]
        if teacher == "affinity":
            refined = cut(spread_over_picture(scales, outputs[0], size), background)
        else:
            extent = grid_extent(size, stride=stride)
            maps = finished_maps([np.maximum(one, 0) for one in scales], size, extent=extent, epsilon=0.0)
            refined = crf_labels(resize_bicubic(record.image, size), [cut(maps, background)], 1 + len(labels))[0]
        target = target_of(np.append(0, 1 + labels)[refined], 1 + len(made), stride=stride)
        lesson.write(slots[index], [scale["unit"] for scale in outputs], record.labels > 0, target)

    write_all(results, write)


def unit_features_and_evidence(model: Classifier, pictures: jax.Array, sizes: jax.Array, made: jax.Array) -> Outputs:
    """Features and evidence of padded pictures, with the features of their mirror images added.

    Args:
        model: the classifier.
        pictures: uint8 (b, h, w, 3), RGB, padded right and bottom.
        sizes: int32 (b, 2), valid rows and columns.
        made: float32 (c, d), directions.

    Returns:
        "unit" float16 (b, h', w', d), of unit length; "evidence" float32 (b, h', w', c).
    """
    straight, mirrored, _ = features_of_both(model, pictures, sizes)
    return _of_summed(straight + mirrored, made)


def unit_features_evidence_and_guide(
    model: Classifier, pictures: jax.Array, sizes: jax.Array, made: jax.Array
) -> Outputs:
    """`unit_features_and_evidence`, and what evidence spreads along (`spreading.guide`)."""
    images, extents = with_mirror_images(model, pictures, sizes)
    stages = model.backbone(images, extents)
    straight, mirrored = mirrored_back(stages[-1].astype(jnp.float32), model.grid_sizes(extents))
    return _of_summed(straight + mirrored, made) | guide(model.backbone, stages, extents, pictures)


def _of_summed(features: jax.Array, made: jax.Array) -> Outputs:
    return {"unit": unit(features).astype(jnp.float16), "evidence": evidence(features, made)}


def choose_pictures(labels: np.ndarray, count: int, *, seed: int) -> list[int]:
    """Choose pictures class by class in turn, so that rare classes are represented.

    Args:
        labels: 0/1 (n, c).
        count: maximum number of pictures.
        seed: random seed.

    Returns:
        At most `count` indices, ascending; never of pictures without a class.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    present = labels[order] > 0
    # Every class has a queue of its pictures; a picture's turn is its best place in any queue.
    turns = np.where(present, present.cumsum(axis=0), np.inf).min(axis=1)
    first = np.argsort(turns, kind="stable")[: min(count, present.any(axis=1).sum())]
    return sorted(order[first].tolist())


def target_of(labels: np.ndarray, count: int, *, stride: int) -> np.ndarray:
    """Fraction of each feature position covered by each label.

    Args:
        labels: int (H, W), 0 .. count - 1.
        count: number of labels.
        stride: pixels per feature position.

    Returns:
        float32 (ceil(H / stride), ceil(W / stride), count), in [0, 1]; positions that extend beyond the picture sum to
        less than 1.
    """
    height, width = (-(-length // stride) for length in labels.shape)
    canvas = np.full((height * stride, width * stride), count)
    canvas[: labels.shape[0], : labels.shape[1]] = labels
    blocks = canvas.reshape(height, stride, width, stride)
    covered = np.zeros((height, width, count), np.float32)
    for n in np.unique(labels):
        covered[..., n] = (blocks == n).mean(axis=(1, 3), dtype=np.float32)
    return covered
