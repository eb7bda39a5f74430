"""Faithfulness of a map to the classifier: do the pixels that it marks determine the class?

Pictures are changed according to the map, and classified again:

    insertion               insert the marked pixels first into a blurred picture: how soon does the class appear?
    deletion                delete the marked pixels first: how soon does the class disappear?
    average drop            keep only the marked pixels: how much of the class's probability is lost?
    increase in confidence  keep only the marked pixels: in how many pictures does the probability rise?
    ROAD                    impute the marked pixels, or all others, from their surroundings: how much does it matter?

Higher is better, except for deletion and the average drop.

A classifier is any function: float32 (b, H, W, 3) pictures -> float (b, c), the probability of each class. Pixels are
ordered by their values in the map; ties are in reading order. None of the measures knows where the object is: they
reward a map that finds the most discriminative part, which need not be one that covers the object.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Classify = Callable[[np.ndarray], np.ndarray]

# Neighbours (row, column) and their weights: 1/6 across edges, 1/12 across corners.
_NEIGHBOURS = {
    **dict.fromkeys([(-1, 0), (0, -1), (0, 1), (1, 0)], 1 / 6),
    **dict.fromkeys([(-1, -1), (-1, 1), (1, -1), (1, 1)], 1 / 12),
}


class Curve(NamedTuple):
    """The class's probability while pixels are exchanged.

    Attributes:
        fractions: float (s + 1,), fraction of exchanged pixels, from 0 to 1.
        scores: float (s + 1,), the probability.
        auc: area under the curve, in [0, 1].
    """

    fractions: np.ndarray
    scores: np.ndarray
    auc: float


class Road(NamedTuple):
    """The result of `road`, remove and debias.

    Attributes:
        fractions: float (f,), fraction of removed pixels.
        most_first: float (f,), the class's probability without the most relevant pixels (MoRF).
        least_first: float (f,), without the least relevant pixels (LeRF).
        score: mean of (least_first - most_first) / 2, in [-1/2, 1/2].
    """

    fractions: np.ndarray
    most_first: np.ndarray
    least_first: np.ndarray
    score: float


def insertion(
    classify: Classify,
    picture: np.ndarray,
    map: np.ndarray,
    target: int,
    *,
    steps: int = 224,
    baseline: np.ndarray | float | None = None,
) -> Curve:
    """Insert the picture's pixels into a blurred picture, the highest in the map first; higher is better.

    Args:
        classify: the classifier; called once, with steps + 1 pictures (see `in_batches`).
        picture: (H, W, 3), in the range that `classify` expects.
        map: float (H, W).
        target: the class.
        steps: number of steps, of equally many pixels; by default, as in the paper, one row of 224 x 224 pixels each.
        baseline: the initial picture, broadcast to (H, W, 3); None: `blurred(picture)`, as in the paper.

    Returns:
        Curve.

    Source: Petsiuk, Das and Saenko, RISE (2018).
    """
    start = blurred(picture) if baseline is None else baseline
    return _exchange(classify, start, picture, map, target, steps)


def deletion(
    classify: Classify,
    picture: np.ndarray,
    map: np.ndarray,
    target: int,
    *,
    steps: int = 224,
    baseline: np.ndarray | float = 0.0,
) -> Curve:
    """Delete the picture's pixels, the highest in the map first; lower is better.

    Args:
        classify: the classifier; called once, with steps + 1 pictures (see `in_batches`).
        picture: (H, W, 3), in the range that `classify` expects.
        map: float (H, W).
        target: the class.
        steps: number of steps, of equally many pixels; by default, as in the paper, one row of 224 x 224 pixels each.
        baseline: the final picture, broadcast to (H, W, 3). The paper's zero applies to normalized pictures: for
            pictures in [0, 255], give the mean colour.

    Returns:
        Curve.

    Source: Petsiuk, Das and Saenko, RISE (2018).
    """
    return _exchange(classify, picture, baseline, map, target, steps)


def masked_confidence(
    classify: Classify, picture: np.ndarray, map: np.ndarray, target: int, *, baseline: np.ndarray | float = 0.0
) -> tuple[float, float]:
    """Probability of the class before and after dimming everything that the map does not mark.

    The explanation map is E(x) = baseline + map(x) (picture(x) - baseline).

    Args:
        classify: the classifier; called once, with two pictures.
        picture: (H, W, 3), in the range that `classify` expects.
        map: float (H, W), in [0, 1].
        target: the class.
        baseline: value of fully dimmed pixels, broadcast to (H, W, 3). The paper's zero applies to normalized pictures:
            for pictures in [0, 255], give the mean colour.

    Returns:
        (before, after), for `average_drop` and `increase_in_confidence` over many pictures.

    Source: Chattopadhay et al., Grad-CAM++ (2018), section 4.1.
    """
    explanation = baseline + map[..., None] * (picture - np.asarray(baseline))
    before, after = np.asarray(classify(np.stack([picture, explanation]).astype(np.float32)))[:, target]
    return float(before), float(after)


def average_drop(before: np.ndarray, after: np.ndarray) -> float:
    """mean_i max(0, before_i - after_i) / before_i; lower is better.

    Args:
        before: float (n,), probability of the class in each picture.
        after: float (n,), in its explanation map.

    Returns:
        In [0, 1] (the paper gives percent); a picture with before_i = 0 counts as no drop.

    Source: Chattopadhay et al., Grad-CAM++ (2018), section 4.1.
    """
    before, after = np.asarray(before, float), np.asarray(after, float)
    return float(np.mean(np.maximum(before - after, 0) / np.where(before > 0, before, 1)))


def increase_in_confidence(before: np.ndarray, after: np.ndarray) -> float:
    """Share of the pictures with after_i > before_i; higher is better.

    Args:
        before: float (n,), probability of the class in each picture.
        after: float (n,), in its explanation map.

    Returns:
        In [0, 1] (the paper gives percent).

    Source: Chattopadhay et al., Grad-CAM++ (2018), section 4.1.
    """
    return float(np.mean(np.asarray(after) > np.asarray(before)))


def road(
    classify: Classify,
    picture: np.ndarray,
    map: np.ndarray,
    target: int,
    *,
    fractions: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    noise: float = 0.01,
    seed: int = 0,
) -> Road:
    """Remove the most relevant pixels, or the least relevant ones, and `impute` them; higher is better.

    An imputed picture has no edges where pixels are missing, so the classifier cannot see the shape of the mask.

    Args:
        classify: the classifier; called once, with 2 f pictures (see `in_batches`).
        picture: (H, W, 3), in the range that `classify` expects.
        map: float (H, W).
        target: the class.
        fractions: f shares of the pixels to remove, each in [0, 1).
        noise: see `impute`.
        seed: of the noise.

    Returns:
        Road.

    Source: Rong et al., A Consistent and Efficient Evaluation Strategy for Attribution Methods (2022); the combination
    of both orders, and these fractions, are those of the package pytorch-grad-cam.
    """
    ranks = pixel_ranks(map)
    counts = [round(fraction * ranks.size) for fraction in fractions]
    removed = [ranks < count for count in counts] + [ranks >= ranks.size - count for count in counts]
    pictures = np.stack([impute(picture, mask, noise=noise, seed=seed) for mask in removed])
    most_first, least_first = np.asarray(classify(pictures))[:, target].astype(float).reshape(2, -1)
    return Road(np.array(fractions), most_first, least_first, float(np.mean(least_first - most_first) / 2))


def impute(picture: np.ndarray, removed: np.ndarray, *, noise: float = 0.01, seed: int = 0) -> np.ndarray:
    """Noisy linear imputation: each removed pixel is the weighted mean of its neighbours, removed ones included.

        x_i = sum_j w_ij x_j / sum_j w_ij           over the 8 neighbours j in the picture; w 1/6 straight, 1/12 across

    All removed pixels form one sparse symmetric system, which is solved exactly; then noise is added to them.

    Args:
        picture: (H, W, 3).
        removed: bool (H, W), not True everywhere.
        noise: standard deviation, as a share of the picture's range (maximum - minimum).
        seed: of the noise.

    Returns:
        float32 (H, W, 3), equal to the picture where nothing is removed.

    Raises:
        ValueError: all pixels are removed.

    Source: Rong et al. (2022), see `road`.
    """
    from scipy.sparse import csc_array
    from scipy.sparse.linalg import splu

    if removed.all():
        raise ValueError("all pixels are removed: there is nothing to impute from")
    result = picture.astype(np.float32)
    if not removed.any():
        return result
    rows, columns = np.nonzero(removed)
    count = len(rows)
    number = np.pad(np.full(removed.shape, -1), 1, constant_values=-2)  # -1: known, -2: outside
    number[1:-1, 1:-1][removed] = np.arange(count)
    values = np.pad(picture.astype(float), ((1, 1), (1, 1), (0, 0)))
    own, known = np.zeros(count), np.zeros((count, picture.shape[2]))
    entries = [(own, np.arange(count), np.arange(count))]
    for (down, right), weight in _NEIGHBOURS.items():
        place = rows + 1 + down, columns + 1 + right
        neighbour = number[place]
        own += weight * (neighbour != -2)
        known += weight * (neighbour == -1)[:, None] * values[place]
        unknown = np.flatnonzero(neighbour >= 0)
        entries.append((np.full(len(unknown), -weight), unknown, neighbour[unknown]))
    data, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
    # This ordering and mode, meant for symmetric matrices, halve the time.
    solver = splu(csc_array((data, (i, j))), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    deviation = noise * np.ptp(picture.astype(float))
    samples = deviation * np.random.default_rng(seed).standard_normal(known.shape)
    result[removed] = solver.solve(known) + samples
    return result


def blurred(picture: np.ndarray, *, sigma: float = 5.0) -> np.ndarray:
    """Blur a picture, as the start of `insertion`.

    Args:
        picture: (H, W, 3).
        sigma: of the Gaussian, in pixels; it is truncated at one sigma, which gives the paper's 11 x 11 pixels.

    Returns:
        float32 (H, W, 3).
    """
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0), truncate=1)


def pixel_ranks(map: np.ndarray) -> np.ndarray:
    """Rank of every pixel in the map, 0 for the highest; ties in reading order.

    Args:
        map: float (H, W).

    Returns:
        int (H, W), each of 0 .. H W - 1 once.
    """
    ranks = np.empty(map.size, int)
    ranks[np.argsort(-map.reshape(-1), kind="stable")] = np.arange(map.size)
    return ranks.reshape(map.shape)


def in_batches(classify: Classify, size: int) -> Classify:
    """The same classifier, called with batches of `size` pictures, the last one padded, so that it compiles once."""

    def classify_all(pictures: np.ndarray) -> np.ndarray:
        results = []
        for start in range(0, len(pictures), size):
            part = pictures[start : start + size]
            batch = np.zeros((size, *part.shape[1:]), part.dtype)
            batch[: len(part)] = part
            results.append(classify(batch)[: len(part)])
        return np.concatenate(results)

    return classify_all


def _exchange(classify, before, after, map, target, steps) -> Curve:
    """Exchange the pixels of `before` for those of `after`, in the order of the map."""
    ranks = pixel_ranks(map)
    counts = np.arange(steps + 1) * ranks.size // steps
    exchanged = ranks[..., None] < counts[:, None, None, None]
    pictures = np.where(exchanged, np.float32(after), np.float32(before))
    scores = np.asarray(classify(pictures))[:, target].astype(float)
    area = (scores.sum() - (scores[0] + scores[-1]) / 2) / steps
    return Curve(counts / ranks.size, scores, float(area))
