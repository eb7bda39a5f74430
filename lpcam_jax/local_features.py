"""Local features of a class and of its context (paper, Eq. 2), and the bounded sample that is clustered.

The normalized CAM of class n splits the feature positions of every picture that has the class:

    F_n = { f(x) : CAM_n(x) > tau }          B_n = { f(x) : CAM_n(x) < tau }

B_n holds everything else of the picture, other objects included. All pictures' features do not fit in memory,
so `FeatureSample` keeps a uniform sample of fixed size of every F_n and B_n, as one array with weights.
"""

import jax
import jax.numpy as jnp
import numpy as np


@jax.jit
def split(cam: jax.Array, *, threshold: float = 0.1) -> tuple[jax.Array, jax.Array]:
    """Weights of the class's features and of its context's, by the CAM at their positions.

    Args:
        cam: float (*b, h, w), one class's normalized map in [0, 1] on the feature grid.
        threshold: tau.

    Returns:
        (class weight, context weight), float32 (*b, h, w) each, 0 or 1; a tie with tau is in neither.

    Source: paper Eq. 2 (which has >= for the class); reference step "make_lpcam" has both strict.
    """
    return (cam > threshold).astype(jnp.float32), (cam < threshold).astype(jnp.float32)


class FeatureSample:
    """A uniform sample, of at most `size` rows, of the local features of each class and each context.

    Every feature draws a number that depends on the seed, its picture, class, set and position only; the rows
    with the smallest numbers stay. So the sample does not depend on the order of the pictures. Each row knows its
    picture and its place on the feature grid.

    Memory: 2 c size d float32, stated by `nbytes` before anything is allocated.
    """

    def __init__(self, classes: int, dimension: int, *, size: int = 8192, seed: int = 0):
        self.classes, self.dimension, self.size, self.seed = classes, dimension, size, seed
        self._rows = [[np.empty((0, dimension), np.float32) for _ in range(2)] for _ in range(classes)]
        self._positions = [[np.empty((0, 3), np.int32) for _ in range(2)] for _ in range(classes)]
        self._draws = [[np.empty(0, np.float64) for _ in range(2)] for _ in range(classes)]
        self.seen = np.zeros((classes, 2), np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of the full sample."""
        return 2 * self.classes * self.size * self.dimension * 4

    def add(self, picture: int, features: np.ndarray, class_index: int, weights: np.ndarray, *, context: bool):
        """Offer one picture's features to the sample of a class or of its context.

        Args:
            picture: number of the picture, unique in the data set.
            features: float (h, w, d).
            class_index: n.
            weights: 0/1 (h, w), which positions belong to the set (`split`).
            context: whether the set is B_n (else F_n).
        """
        which = int(context)
        chosen = np.flatnonzero(np.asarray(weights).reshape(-1) > 0)
        draws = np.random.default_rng([self.seed, picture, class_index, which]).random(weights.size)[chosen]
        self.seen[class_index, which] += len(chosen)
        kept = self._draws[class_index][which]
        if len(kept) == self.size:
            better = draws < kept[-1]
            chosen, draws = chosen[better], draws[better]
        if not len(chosen):
            return
        rows = np.concatenate([self._rows[class_index][which], features.reshape(-1, self.dimension)[chosen]])
        places = np.stack([np.full_like(chosen, picture), *np.divmod(chosen, features.shape[1])], axis=1)
        positions = np.concatenate([self._positions[class_index][which], places.astype(np.int32)])
        draws = np.concatenate([kept, draws])
        order = np.argsort(draws, kind="stable")[: self.size]
        self._rows[class_index][which], self._draws[class_index][which] = rows[order], draws[order]
        self._positions[class_index][which] = positions[order]

    def points(self, *, context: bool) -> tuple[np.ndarray, np.ndarray]:
        """The sample as one array.

        Args:
            context: whether of the contexts B_n (else of the classes F_n).

        Returns:
            points float32 (c, n, d), zero rows where a class has fewer than n; weights float32 (c, n), 1 or 0.
            n is the largest count of a class, rounded up to a power of two: few compilations.
        """
        rows = [pair[int(context)] for pair in self._rows]
        n = self._length(context)
        points = np.zeros((self.classes, n, self.dimension), np.float32)
        weights = np.zeros((self.classes, n), np.float32)
        for index, one in enumerate(rows):
            points[index, : len(one)] = one
            weights[index, : len(one)] = 1
        return points, weights

    def positions(self, *, context: bool) -> np.ndarray:
        """Where the rows of `points` come from.

        Args:
            context: whether of the contexts B_n (else of the classes F_n).

        Returns:
            int32 (c, n, 3): number of the picture, row and column on its feature grid; -1 where `points` has no row.
        """
        places = [pair[int(context)] for pair in self._positions]
        positions = np.full((self.classes, self._length(context), 3), -1, np.int32)
        for index, one in enumerate(places):
            positions[index, : len(one)] = one
        return positions

    def _length(self, context: bool) -> int:
        longest = max(max(len(pair[int(context)]) for pair in self._rows), 1)
        return min(1 << (longest - 1).bit_length(), max(self.size, longest))
