"""Local features of a class and of its context (paper, Eq. 2), and the bounded sample that is clustered.

The normalized CAM of class n splits the feature positions of every picture that contains the class:

    F_n = { f(x) : CAM_n(x) > tau }          B_n = { f(x) : CAM_n(x) < tau }

B_n holds the rest of the picture, other objects included. The features of all pictures do not fit in memory, so
`FeatureSample` keeps a uniform sample of fixed size of every F_n and B_n, as one array with weights.
"""

import jax
import numpy as np

Array = jax.Array | np.ndarray


def split(cam: Array, *, threshold: float = 0.1) -> tuple[Array, Array]:
    """Split feature positions into those of the class and those of its context, by the CAM.

    Args:
        cam: float (*b, h, w), one class's normalized map in [0, 1] on the feature grid.
        threshold: tau.

    Returns:
        (class weight, context weight), float32 (*b, h, w) each, 0 or 1, NumPy's if the map is; a value of exactly tau
        is in neither.

    Source: paper Eq. 2 (which has >= for the class); reference step "make_lpcam" has both strict.
    """
    return (cam > threshold).astype(np.float32), (cam < threshold).astype(np.float32)


class FeatureSample:
    """A uniform sample, of at most `size` rows, of the local features of each class and each context.

    Every feature draws a number that depends only on the seed, its picture, class, set and position; the rows with the
    smallest numbers stay. So the sample depends neither on the order of the pictures nor on how they are distributed
    over samples that are united in the end. The picture and grid position of each row are stored too.

    Memory: 2 c size d float32, see `nbytes`; the operating system allocates pages only as rows are filled.

    Args:
        classes: c.
        dimension: d, of the features.
        size: maximal number of rows of each class and each context.
        seed: of the draws.

    Attributes:
        seen: int64 (c, 2), number of features offered of each class and its context.
    """

    def __init__(self, classes: int, dimension: int, *, size: int = 8192, seed: int = 0):
        self.classes, self.dimension, self.size, self.seed = classes, dimension, size, seed
        self._rows = np.zeros((2, classes, size, dimension), np.float32)
        self._positions = np.full((2, classes, size, 3), -1, np.int32)
        self._draws = np.empty((2, classes, size))
        self._counts = np.zeros((2, classes), int)
        self.seen = np.zeros((classes, 2), np.int64)

    @property
    def nbytes(self) -> int:
        """Size of the full sample in bytes."""
        return self._rows.nbytes

    def add(self, picture: int, features: np.ndarray, class_index: int, weights: np.ndarray, *, context: bool):
        """Offer one picture's features to the sample of a class or of its context.

        Args:
            picture: number of the picture, unique in the data set.
            features: float (h, w, d).
            class_index: n.
            weights: (h, w), 1 for positions that belong to the set, 0 for others (`split`).
            context: whether the set is B_n (else F_n).
        """
        which = int(context)
        chosen = np.flatnonzero(np.asarray(weights).reshape(-1) > 0)
        draws = np.random.default_rng([self.seed, picture, class_index, which]).random(weights.size)[chosen]
        positions = np.stack([np.full_like(chosen, picture), *np.divmod(chosen, features.shape[1])], axis=1)
        self.seen[class_index, which] += len(chosen)
        self._offer(which, class_index, features.reshape(-1, self.dimension), chosen, positions, draws)

    def part(self, class_index: int, *, context: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The sample of a class or of its context, to be united with another one.

        Args:
            class_index: n.
            context: whether of B_n (else of F_n).

        Returns:
            rows float32 (m, d), positions int32 (m, 3), draws float64 (m,).
        """
        which, filled = int(context), slice(self._counts[int(context), class_index])
        return tuple(array[which, class_index, filled] for array in (self._rows, self._positions, self._draws))

    def unite(self, class_index: int, part: tuple[np.ndarray, np.ndarray, np.ndarray], *, context: bool) -> None:
        """Merge a sample of other pictures into this one: the smallest draws of both stay.

        Args:
            class_index: n.
            part: the other's `part`: rows float32 (m, d), positions int32 (m, 3), draws float64 (m,).
            context: whether of B_n (else of F_n).
        """
        rows, positions, draws = part
        self._offer(int(context), class_index, rows, np.arange(len(rows)), positions, draws)

    def _offer(self, which, class_index, rows, chosen, positions, draws):
        """Keep the smallest draws: rows[chosen[i]] drew draws[i] and is at positions[i]."""
        count = self._counts[which, class_index]
        own_draws = self._draws[which, class_index]
        if count + len(draws) <= self.size:
            new, slots = slice(None), slice(count, count + len(draws))
        else:
            smallest = np.argpartition(np.concatenate([own_draws[:count], draws]), self.size - 1)[: self.size]
            new = smallest[smallest >= count] - count
            slots = np.setdiff1d(np.arange(self.size), smallest[smallest < count])
        own_draws[slots] = draws[new]
        self._rows[which, class_index, slots] = rows[chosen[new]]
        self._positions[which, class_index, slots] = positions[new]
        self._counts[which, class_index] = min(count + len(draws), self.size)

    def points(self, *, context: bool) -> tuple[np.ndarray, np.ndarray]:
        """The sample as one array, in the order of the draws.

        Args:
            context: whether of the contexts B_n (else of the classes F_n).

        Returns:
            points float32 (c, n, d), a view of the sample, zero rows where a class has fewer than n; weights float32
            (c, n), 1 or 0. n is the largest count of a class, rounded up to a power of two to limit
            compilations, at most `size`.
        """
        which, n = int(context), self._length(context)
        self._sort(which)
        return self._rows[which, :, :n], (np.arange(n) < self._counts[which, :, None]).astype(np.float32)

    def positions(self, *, context: bool) -> np.ndarray:
        """The origins of the rows of `points`.

        Args:
            context: whether of the contexts B_n (else of the classes F_n).

        Returns:
            int32 (c, n, 3): number of the picture, row and column on its feature grid; -1 for zero rows of `points`.
        """
        self._sort(int(context))
        return self._positions[int(context), :, : self._length(context)]

    def _sort(self, which: int) -> None:
        for n, count in enumerate(self._counts[which]):
            order = np.argsort(self._draws[which, n, :count], kind="stable")
            for values in (self._draws[which, n], self._rows[which, n], self._positions[which, n]):
                values[:count] = values[order]

    def _length(self, context: bool) -> int:
        longest = max(int(self._counts[int(context)].max()), 1)
        return min(1 << (longest - 1).bit_length(), self.size)
