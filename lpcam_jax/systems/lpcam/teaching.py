"""LPCAM-T, LPCAM taught: one direction a class, which learns from what a CRF put right in the seeds.

LPCAM is one direction a class on unit features (`prototype_activation`), and clusters alone do not find the best one.
A CRF moves the seeds of LPCAM to the edges of the photographs; a direction whose own seeds are those needs no CRF any
more. It is found by gradients through all that makes a seed of a feature: cosine, ReLU, scales, maximum, threshold.

    A_n(x) = normalized sum over scales of ReLU(unit(f(x)) . d_n)
    p(x)   = softmax([theta, A_1(x), ..., A_n(x)] / T)              the seed, softened
    loss   = 1 - mean_n  sum_x p_n y_n / sum_x (p_n + y_n - p_n y_n)     y: what the CRF says

Network and classifier stay as they are; mapping costs what LPCAM costs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ...class_activation import normalize, resize_bilinear
from ...clustering import unit
from ...data.augment import scaled_size

# Close to the seed threshold of `config.Inference`; how softly it is cut; of Adam, on directions of length 1.
_THETA, _TEMPERATURE, _LEARNING_RATE = 0.35, 0.08, 0.002


class Lesson(NamedTuple):
    """Pictures to learn from, each padded to the largest; made by `blank_lesson`, filled by `write`.

    features: for each scale float16 (n, h_s, w_s, d), unit features, those of the mirror image added before; 0 in the
              padding
    down:     for each scale float32 (n, h, h_s), rows to the grid of scale 1
    across:   for each scale float32 (n, w, w_s), columns
    present:  bool (n, c), the classes of each picture
    targets:  float32 (n, h, w, 1 + c), which part of a position is background and each class; where they sum to less
              than 1, the rest is unknown and not counted
    """

    features: tuple[np.ndarray, ...]
    down: tuple[np.ndarray, ...]
    across: tuple[np.ndarray, ...]
    present: np.ndarray
    targets: np.ndarray

    def write(self, slot: int, features: Sequence[np.ndarray], present: np.ndarray, target: np.ndarray) -> None:
        """Put a picture, of that slot's size, where it belongs: arguments as above, without n and unpadded."""
        self.present[slot] = present
        for whole, one in zip((*self.features, self.targets), (*features, target), strict=True):
            whole[slot][tuple(map(slice, one.shape))] = one


def blank_lesson(
    sizes: Sequence[tuple[int, int]], scales: Sequence[float], *, stride: int, classes: int, dimension: int
) -> Lesson:
    """Room for pictures; one that is never written is not learned from.

    Args:
        sizes: (H, W) of each picture in pixels.
        scales: of their features.
        stride: pixels a feature position.
        classes: c.
        dimension: d.

    Returns:
        Lesson of n pictures, with nothing in them.
    """
    own, *grids = (
        np.array([[-(-length // stride) for length in scaled_size(size, scale)] for size in sizes])
        for scale in (1.0, *scales)
    )

    def resizes(grid: np.ndarray, axis: int) -> np.ndarray:
        """The matrix of every picture: an identity, resized."""
        whole = np.zeros((len(sizes), own[:, axis].max(), grid[:, axis].max()), np.float32)
        for matrix, rows, columns in zip(whole, own[:, axis], grid[:, axis], strict=True):
            resized = resize_bilinear(np.eye(columns, dtype=np.float32)[..., None], (int(rows), int(columns)))
            matrix[:rows, :columns] = resized[..., 0]
        return whole

    return Lesson(
        tuple(np.zeros((len(sizes), *grid.max(axis=0), dimension), np.float16) for grid in grids),
        *(tuple(resizes(grid, axis) for grid in grids) for axis in (0, 1)),
        np.zeros((len(sizes), classes), bool),
        np.zeros((len(sizes), *own.max(axis=0), 1 + classes), np.float32),
    )


def soft_seeds(directions: jax.Array, lesson: Lesson) -> jax.Array:
    """How far each position is background and each class, p above.

    Args:
        directions: float (c, d), of any length.
        lesson: n pictures.

    Returns:
        float32 (n, h, w, 1 + c), in [0, 1], summing to 1; 0 for the classes that a picture has not.
    """
    total = 0.0
    for features, down, across in zip(lesson.features, lesson.down, lesson.across, strict=True):
        one = jax.nn.relu(jnp.einsum("nhwd,cd->nhwc", features.astype(jnp.float32), unit(directions)))
        total += jnp.einsum("nHh,nhwc,nWw->nHWc", down, one, across)
    maps = jnp.where(lesson.present[:, None, None], normalize(total), -jnp.inf)
    background = jnp.full((*maps.shape[:-1], 1), _THETA)
    return jax.nn.softmax(jnp.concatenate([background, maps], axis=-1) / _TEMPERATURE)


def teaching_loss(directions: jax.Array, lesson: Lesson) -> jax.Array:
    """1 - soft mIoU of the seeds with the targets; classes (or background) in neither count as missed.

    Args:
        directions: float (c, d).
        lesson: n pictures.

    Returns:
        float32 (), in [0, 1].

    Source: the soft Jaccard index of Rahman and Wang, 2016.
    """
    targets = lesson.targets
    seeds = soft_seeds(directions, lesson) * targets.sum(axis=-1, keepdims=True)
    overlap, either = seeds * targets, seeds + targets - seeds * targets
    return 1 - (overlap.sum(axis=(0, 1, 2)) / jnp.maximum(either.sum(axis=(0, 1, 2)), 1)).mean()


_SCHOOL = optax.adam(_LEARNING_RATE)


@jax.jit
def _step(directions, memory, lesson):
    loss, gradient = jax.value_and_grad(teaching_loss)(directions, lesson)
    update, memory = _SCHOOL.update(gradient, memory)
    return optax.apply_updates(directions, update), memory, loss


def teach(
    directions: np.ndarray,
    lesson: Lesson,
    *,
    steps: int = 60,
    batch: int = 64,
    seed: int = 0,
    report: Callable[[float], None] = lambda loss: None,
) -> np.ndarray:
    """Directions whose seeds are more like the targets.

    Args:
        directions: float (c, d), where they start, such as LPCAM's; their lengths have no influence. A class with a
            direction of 0, and one that no picture has, keeps its own.
        lesson: the pictures, on the host; a batch of them is on a device at a time.
        steps: of Adam; few, as the targets are not the truth.
        batch: pictures a step, all there are where they are fewer.
        seed: of their order.
        report: is told the loss of every step.

    Returns:
        float32 (c, d), of length 1 or 0.
    """
    taught = unit(jnp.asarray(directions, jnp.float32))
    memory = _SCHOOL.init(taught)
    for indices in _batches(len(lesson.present), min(batch, len(lesson.present)), steps, seed=seed):
        taught, memory, loss = _step(taught, memory, jax.tree.map(lambda leaf, of=indices: leaf[of], lesson))
        report(float(loss))
    return np.asarray(unit(taught))


def _batches(count: int, batch: int, steps: int, *, seed: int) -> Iterator[np.ndarray]:
    """Indices of the pictures of every step: all of them, in a random order, and again."""
    order, generator = np.zeros(0, int), np.random.default_rng(seed)
    for _ in range(steps):
        while len(order) < batch:
            order = np.concatenate([order, generator.permutation(count)])
        yield order[:batch]
        order = order[batch:]
