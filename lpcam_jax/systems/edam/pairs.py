"""The pairs of pictures that EDAM is trained on: every pass pairs each picture once with one that shares a class.

Where the last of a class finds no partner that is still free, it takes one that has been paired already, and a picture
whose classes no other has is paired with itself: the two crops differ. The authors' own list of pairs, of 25 such
passes, is not published.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ...data.records import Record, RecordSource
from ...machine.errors import UserError


class Pair(NamedTuple):
    """Two pictures that share a class."""

    first: Record
    second: Record


class Pairs:
    """The pairs of all steps of a training, in order.

    Args:
        source: labelled pictures; those without a class are left out.
        count: number of pairs.
        seed: of the pairing.

    Raises:
        UserError: no picture has a class.
    """

    def __init__(self, source: RecordSource, count: int, *, seed: int):
        self._source = source
        self.pairs = paired(np.asarray(source.labels), count, seed=seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        first, second = self.pairs[index]
        return Pair(self._source[int(first)], self._source[int(second)])


def paired(labels: np.ndarray, count: int, *, seed: int) -> np.ndarray:
    """Pair pictures that share a class, pass after pass.

    Args:
        labels: float (n, c), 1 for the classes of each picture, else 0.
        count: number of pairs.
        seed: of the pairing.

    Returns:
        int32 (count, 2), numbers of pictures.

    Raises:
        UserError: no picture has a class.
    """
    classes = [np.flatnonzero(row) for row in labels]
    if not any(map(len, classes)):
        raise UserError("none of the pictures to train on has a class; EDAM is trained on pairs that share one.")
    rng, pairs = np.random.default_rng(seed), []
    while len(pairs) < count:
        pairs += one_pass(classes, labels.shape[1], rng)
    return np.int32(pairs[:count])


def one_pass(classes: list[np.ndarray], count: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """The pairs of a pass, in random order.

    Args:
        classes: of each picture; one without any is left out.
        count: number of classes.
        rng: random generator.

    Yields:
        Numbers of two pictures that share a class. Every picture with a class is in a pair, and twice at most those
        that others were left with.
    """
    order = rng.permutation(len(classes)).tolist()
    members = [[] for _ in range(count)]
    for picture in order:
        for number in classes[picture]:
            members[number].append(picture)
    # The stacks of pictures that may be free: what has been paired is dropped when it is found on top.
    free, is_paired = [rng.permutation(one).tolist() for one in members], [False] * len(classes)
    for picture in order:
        if is_paired[picture] or not len(classes[picture]):
            continue
        is_paired[picture] = True
        shared = rng.permutation(classes[picture])
        partner = next((one for number in shared if (one := _top(free[number], is_paired)) is not None), None)
        if partner is None:
            others = [one for number in shared for one in members[number] if one != picture]
            partner = others[rng.integers(len(others))] if others else picture
        is_paired[partner] = True
        yield picture, partner


def _top(stack: list[int], is_paired: list[bool]) -> int | None:
    """The first picture of a stack that is still free; None: there is none."""
    while stack and is_paired[stack[-1]]:
        stack.pop()
    return stack.pop() if stack else None
