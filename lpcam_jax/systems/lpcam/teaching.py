"""LPCAM-T, LPCAM taught: one direction per class, learned from seeds that a CRF has refined.

LPCAM is one direction per class on unit features (`prototype_activation`), and clustering alone does not find the best
one. A CRF aligns the seeds of LPCAM with the edges in the photographs; a direction that produces such seeds itself
needs no CRF. It is found by gradients through everything that turns features into a seed: cosine, ReLU, scales,
maximum, threshold.

    A_n(x) = normalized sum over scales of ReLU(unit(f(x)) . d_n)
    p(x)   = softmax([theta, A_1(x), ..., A_n(x)] / T)              the seed, softened
    loss   = 1 - mean_n  sum_x p_n y_n / sum_x (p_n + y_n - p_n y_n)     y: the labels of the CRF

Network and classifier are unchanged; the maps cost as much as LPCAM's.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...class_activation import normalize, resize_bilinear
from ...clustering import unit
from ...data.resizing import scaled_size

# The threshold is close to the seed threshold in `LPCAMInference`; the learning rate suits directions of length 1.
_THETA, _TEMPERATURE, _LEARNING_RATE = 0.35, 0.08, 0.002
_OPTIMIZER = optax.adam(_LEARNING_RATE)


class Lesson(NamedTuple):
    """Pictures to learn from, each padded to the largest; allocated by `blank_lesson`, filled by `write`.

    Attributes:
        features: for each scale float16 (n, h_s, w_s, d), unit features of the sum with the mirror image's features; 0
            in the padding.
        down: for each scale float32 (n, h, h_s), the matrix that resizes rows to the grid of scale 1.
        across: for each scale float32 (n, w, w_s), the same for columns.
        present: bool (n, c), the classes of each picture.
        targets: float32 (n, h, w, 1 + c), fractions of a position that are background and each class; where they sum
            to less than 1, the rest is unknown and not counted.
    """

    features: tuple[np.ndarray, ...]
    down: tuple[np.ndarray, ...]
    across: tuple[np.ndarray, ...]
    present: np.ndarray
    targets: np.ndarray

    def write(self, slot: int, features: Sequence[np.ndarray], present: np.ndarray, target: np.ndarray) -> None:
        """Store the picture of a slot.

        Args:
            slot: index of the picture, from 0 to n - 1.
            features: for each scale float (h_s, w_s, d), unpadded.
            present: bool (c,).
            target: float (h, w, 1 + c), unpadded.
        """
        self.present[slot] = present
        for padded, values in zip((*self.features, self.targets), (*features, target), strict=True):
            padded[slot][tuple(map(slice, values.shape))] = values


def blank_lesson(
    sizes: Sequence[tuple[int, int]], scales: Sequence[float], *, stride: int, classes: int, dimension: int
) -> Lesson:
    """Allocate a lesson; slots that are never written have no influence.

    Args:
        sizes: (H, W) of each of the n pictures in pixels.
        scales: picture scales of their features.
        stride: pixels per feature position.
        classes: c.
        dimension: d.

    Returns:
        Lesson of n blank pictures.
    """
    own, *grids = (
        np.array([[-(-length // stride) for length in scaled_size(size, scale)] for size in sizes])
        for scale in (1.0, *scales)
    )

    def resize_matrices(grid: np.ndarray, axis: int) -> np.ndarray:
        """The resize matrix of every picture, a resized identity matrix."""
        matrices = np.zeros((len(sizes), own[:, axis].max(), grid[:, axis].max()), np.float32)
        for matrix, rows, columns in zip(matrices, own[:, axis], grid[:, axis], strict=True):
            resized = resize_bilinear(np.eye(columns, dtype=np.float32)[..., None], (int(rows), int(columns)))
            matrix[:rows, :columns] = resized[..., 0]
        return matrices

    return Lesson(
        tuple(np.zeros((len(sizes), *grid.max(axis=0), dimension), np.float16) for grid in grids),
        *(tuple(resize_matrices(grid, axis) for grid in grids) for axis in (0, 1)),
        np.zeros((len(sizes), classes), bool),
        np.zeros((len(sizes), *own.max(axis=0), 1 + classes), np.float32),
    )


def soft_seeds(directions: jax.Array, lesson: Lesson) -> jax.Array:
    """Soft membership of each position in background and classes: p in the module docstring.

    Args:
        directions: float (c, d), of any length.
        lesson: n pictures.

    Returns:
        float32 (n, h, w, 1 + c), in [0, 1], summing to 1; 0 for the classes that are not in a picture.
    """
    total = 0.0
    for features, down, across in zip(lesson.features, lesson.down, lesson.across, strict=True):
        features = features.astype(jnp.float32)
        activation = jax.nn.relu(jnp.einsum("nhwd,cd->nhwc", features, unit(directions), precision="highest"))
        total += jnp.einsum("nHh,nhwc,nWw->nHWc", down, activation, across, precision="highest")
    maps = jnp.where(lesson.present[:, None, None], normalize(total), -jnp.inf)
    background = jnp.full((*maps.shape[:-1], 1), _THETA)
    return jax.nn.softmax(jnp.concatenate([background, maps], axis=-1) / _TEMPERATURE)


def teaching_loss(directions: jax.Array, lesson: Lesson) -> jax.Array:
    """1 - soft mIoU of the seeds and the targets; a class (or background) present in neither has an IoU of 0.

    Args:
        directions: float (c, d).
        lesson: n pictures.

    Returns:
        float32 (), in [0, 1].

    Source: the soft Jaccard index of Rahman and Wang, 2016.
    """
    targets = lesson.targets
    seeds = soft_seeds(directions, lesson) * targets.sum(axis=-1, keepdims=True)
    intersection, union = seeds * targets, seeds + targets - seeds * targets
    return 1 - (intersection.sum(axis=(0, 1, 2)) / jnp.maximum(union.sum(axis=(0, 1, 2)), 1)).mean()


@jax.jit
def _step(directions, opt_state, lesson):
    loss, gradient = jax.value_and_grad(teaching_loss)(directions, lesson)
    updates, opt_state = _OPTIMIZER.update(gradient, opt_state)
    return optax.apply_updates(directions, updates), opt_state, loss


def teach(
    directions: np.ndarray,
    lesson: Lesson,
    *,
    steps: int = 60,
    batch: int = 64,
    seed: int = 0,
    report: Callable[[float], None] = lambda loss: None,
) -> np.ndarray:
    """Train directions so that their seeds match the targets better.

    Args:
        directions: float (c, d), the initial directions, such as LPCAM's; their lengths have no influence. A class that
            is in no picture, or whose direction is 0, keeps its direction.
        lesson: the pictures, on the host; one batch at a time is moved to a device.
        steps: number of Adam steps; few, because the targets are not the ground truth.
        batch: pictures per step, or all if there are fewer.
        seed: random seed of their order.
        report: called with the loss of every step.

    Returns:
        float32 (c, d), of length 1 or 0.
    """
    taught = unit(jnp.asarray(directions, jnp.float32))
    opt_state = _OPTIMIZER.init(taught)
    for indices in _batches(len(lesson.present), min(batch, len(lesson.present)), steps, seed=seed):
        taught, opt_state, loss = _step(taught, opt_state, jax.tree.map(lambda leaf, of=indices: leaf[of], lesson))
        report(float(loss))
    return np.asarray(unit(taught))


def _batches(count: int, batch: int, steps: int, *, seed: int) -> Iterator[np.ndarray]:
    """Indices of the pictures of every step, from concatenated random permutations of all pictures."""
    order, generator = np.zeros(0, int), np.random.default_rng(seed)
    for _ in range(steps):
        while len(order) < batch:
            order = np.concatenate([order, generator.permutation(count)])
        yield order[:batch]
        order = order[batch:]
