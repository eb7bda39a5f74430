"""After the prototypes: one direction a class is taught by the CRF, from some of the pictures.

features of all scales -> LPCAM -> seeds -> CRF -> `Lesson` -> `teach`

The features of the pictures that are learned from are in memory together, which bounds how many there can be.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from ..class_activation import resize_bilinear
from ..clustering import unit
from ..data.records import Record, RecordSource
from ..devices import jit_forward, replicate
from ..errors import UserError
from ..inference import features_of_both, on_picture
from ..models.folding import fold_batch_norm
from ..passes import Pass, run_passes
from ..prototype_activation import directions, lpcam
from ..prototypes import Prototypes
from ..refinement import crf_labels, cut
from ..results import write_all
from ..teaching import Lesson, teach
from .checkpoints import TrainState
from .run import Run
from .state import graph_of

_STEPS = 60


def teach_directions(
    run: Run, state: TrainState, prototypes: Prototypes, source: RecordSource, *, devices: Mesh
) -> np.ndarray:
    """The directions of `teaching`, starting from LPCAM's; every process finds the same.

    Args:
        run: for its config.
        state: the trained classifier.
        prototypes: LPCAM's.
        source: labelled pictures, of which `prototypes.taught` are learned from.
        devices: the mesh of this process.

    Returns:
        float32 (c, d), of length 1, or 0 where LPCAM's is.

    Raises:
        UserError: none of these pictures could be read.
    """
    config, start = run.config, np.asarray(directions(prototypes))
    chosen = choose_pictures(source.labels, config.prototypes.taught, seed=config.seed)
    graph, *_ = graph_of(config, len(source.class_names))
    graph, *folded = fold_batch_norm(graph, *replicate((state.parameters, state.batch_stats), devices))

    @jit_forward
    def network(parameters, batch_stats, made, pictures, sizes):
        model = nnx.merge(graph, parameters, batch_stats)
        straight, mirrored, _ = features_of_both(model, pictures, sizes)
        both = straight + mirrored
        grid = model.backbone.grid_sizes(sizes)
        return {"features": unit(both).astype(jnp.float16), "lpcam": lpcam(both, made), "grid": grid}

    at_scale = partial(network, *replicate((*folded, start), devices))
    results = run_passes(
        [Pass(scale, at_scale) for scale in config.inference.scales],
        source,
        batches=config.inference,
        devices=devices,
        description="refined seeds",
        skipped=[],  # the feature sample has named them
        only=chosen,
    )
    stride, background = config.model.output_stride, config.inference.background
    learned: dict[int, tuple] = {}

    def learn(index: int, record: Record, outputs: list[dict[str, np.ndarray]]) -> None:
        classes, size = np.flatnonzero(record.labels), record.image.shape[:2]
        maps = on_picture([one["lpcam"][..., classes] for one in outputs], size, stride=stride, epsilon=0.0)
        labels = crf_labels(record.image, [cut(maps, background)], 1 + len(classes))[0]
        target = target_of(np.concatenate([[0], 1 + classes])[labels], 1 + len(start), stride=stride)
        learned[index] = [one["features"] for one in outputs], record.labels > 0, target

    write_all(results, learn)
    if not learned:
        raise UserError(
            f"none of the {len(chosen)} pictures to learn from could be read; see the lines above, or give "
            "--prototypes.taught more."
        )
    features, present, targets = zip(*(learned.pop(index) for index in sorted(learned)), strict=True)
    lesson = make_lesson(features, np.stack(present), targets)
    mebibytes = sum(leaf.nbytes for leaf in jax.tree.leaves(lesson)) / 2**20
    tqdm.write(f"teaching: {len(present)} pictures, {mebibytes:,.0f} MiB of memory (--prototypes.taught)")
    with tqdm(total=_STEPS, desc="teaching", unit="step") as bar:

        def report(loss: float) -> None:
            bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()

        return teach(start, lesson, steps=_STEPS, seed=config.seed, report=report)


def choose_pictures(labels: np.ndarray, count: int, *, seed: int) -> list[int]:
    """Pictures of every class in turn, so that a rare class is learned from as well.

    Args:
        labels: 0/1 (n, c).
        count: how many.
        seed: of the choice.

    Returns:
        At most `count` indices, ascending; none twice, and none without a class.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    of_class = [iter(order[labels[order, n] > 0]) for n in range(labels.shape[1])]
    chosen: set[int] = set()
    while of_class and len(chosen) < count:
        still = []
        for pictures in of_class:
            new = next((int(index) for index in pictures if index not in chosen), None)
            if new is not None and len(chosen) < count:
                chosen.add(new)
                still.append(pictures)
        of_class = still
    return sorted(chosen)


def target_of(labels: np.ndarray, count: int, *, stride: int) -> np.ndarray:
    """Which part of every feature position has each label.

    Args:
        labels: int (H, W), 0 .. count - 1.
        count: of labels.
        stride: pixels a feature position.

    Returns:
        float32 (ceil(H / stride), ceil(W / stride), count), in [0, 1]; positions at the edge, which the picture ends
        in, sum to less than 1.
    """
    height, width = (-(-length // stride) for length in labels.shape)
    canvas = np.full((height * stride, width * stride), count)
    canvas[: labels.shape[0], : labels.shape[1]] = labels
    blocks = canvas.reshape(height, stride, width, stride)
    return np.stack([(blocks == n).mean(axis=(1, 3), dtype=np.float32) for n in range(count)], axis=-1)


def make_lesson(features: Sequence[list[np.ndarray]], present: np.ndarray, targets: Sequence[np.ndarray]) -> Lesson:
    """Pad the pictures to the largest, and say how each scale is resized to its picture's own grid.

    Args:
        features: for each of n pictures, for each scale, float16 (h_s, w_s, d). The lists are emptied as the features
            are copied, so that what is not needed can go.
        present: bool (n, c).
        targets: for each picture float32 (h, w, 1 + c).
    """

    def resizes(axis: int, scale: int) -> np.ndarray:
        """The matrix of every picture: an identity, resized."""
        lengths = [(one[scale].shape[axis], target.shape[axis]) for one, target in zip(features, targets, strict=True)]
        return _padded([resize_bilinear(np.eye(a, dtype=np.float32)[..., None], (b, a))[..., 0] for a, b in lengths])

    scales = range(len(features[0]))
    down, across = (tuple(resizes(axis, scale) for scale in scales) for axis in (0, 1))
    gathered = tuple(_padded([one.pop(0) for one in features]) for _ in scales)
    return Lesson(gathered, down, across, present, _padded(targets))


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """All in one array, with zeros up to the largest."""
    whole = np.zeros((len(arrays), *np.max([one.shape for one in arrays], axis=0)), arrays[0].dtype)
    for slot, one in zip(whole, arrays, strict=True):
        slot[tuple(map(slice, one.shape))] = one
    return whole
