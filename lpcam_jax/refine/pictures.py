"""One picture's heat maps refined: NumPy in, NumPy out, and a few compiled shapes for pictures of any size.

Pictures are padded right and bottom to multiples of 64 pixels, and the labels to a power of two: neither has any
influence on what is computed. Pictures of more than a million pixels are refined at half their size, a third, and so
on: that bounds the memory.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from ..class_activation import resize_bilinear
from ..data.augment import resize_bicubic, resize_mask
from ..data.records import Record
from ..machine.errors import UserError
from ..seeds import ir_labels, seed_mask
from .crf import CRF, CRFS, label_unary, mean_field, softmax_unary
from .random_walk import STRIDE, on_picture, random_walk
from .saliency import background_scores, saliency_mask
from .saliency_maps import SaliencyFolder

_GRID = 64
_MOST_PIXELS = 1 << 20


class Refinement(NamedTuple):
    """A refinement that needs no training.

    Attributes:
        refine: "crf": the seeds, put right by a CRF; "none": the seeds.
        background: their threshold.
        salient: saliency maps, with "crf": EDAM's rule, which has no threshold; None: there are none.

    It is true where it changes the seeds.
    """

    refine: Literal["crf", "none"]
    background: float
    salient: SaliencyFolder | None = None

    def __bool__(self) -> bool:
        return self.refine != "none"

    @property
    def protocol(self) -> dict[str, Any]:
        """How pseudo masks are made, as plain JSON values."""
        return {"refine": self.refine, "saliency": self.salient is not None}

    def labels(self, record: Record, maps: np.ndarray) -> np.ndarray:
        """The pseudo mask of a picture.

        Args:
            record: the picture.
            maps: float32 (H, W, n), in [0, 1].

        Returns:
            uint8 (H, W), 0 background, k + 1 the k-th map.
        """
        if self.salient:
            return salient_labels(record.image, maps, self.salient.read(record.id, maps.shape[:2]))
        seed = cut(maps, self.background)
        return crf_labels(record.image, [seed], 1 + maps.shape[-1])[0] if self else seed


def refinement(refine: Literal["crf", "none"], *, background: float, saliency: str = "") -> Refinement:
    """The refinement that flags describe.

    Args:
        refine: "crf" or "none".
        background: threshold of the seeds.
        saliency: folder of saliency maps, with "crf"; empty: none.

    Raises:
        UserError: there is no such folder, or it goes with another refinement.
    """
    if saliency and refine != "crf":
        raise UserError(f"--saliency {saliency}: goes with --refine crf, not with {refine}.")
    return Refinement(refine, background, SaliencyFolder(saliency) if saliency else None)


def cut(maps: np.ndarray, background: float) -> np.ndarray:
    """The seed of maps, float (H, W, n): uint8 (H, W), 0 background, k + 1 the k-th map; without maps, background."""
    if not maps.shape[-1]:
        return np.zeros(maps.shape[:2], np.uint8)
    return seed_mask(maps, np.ones(maps.shape[-1]), background=background).astype(np.uint8)


def crf_labels(image: np.ndarray, labels: Sequence[np.ndarray], count: int, *, crf: CRF = CRFS["irn"]) -> np.ndarray:
    """Labellings of a picture, each put right by a CRF along the edges of the photograph.

    Args:
        image: uint8 (H, W, 3).
        labels: m arrays int (H, W), 0 .. count - 1.
        count: how many labels there are, the background included.
        crf: its parameters.

    Returns:
        uint8 (m, H, W).

    Source: IRN's step "cam_to_ir_label".
    """
    if count == 1:
        return np.zeros((len(labels), *image.shape[:2]), np.uint8)
    size, small = image.shape[:2], _bounded(image.shape[:2])
    shrunk = np.stack([resize_mask(np.uint8(one), small) for one in labels])
    scores = _mean_field(resize_bicubic(image, small), np.asarray(label_unary(shrunk, count)), crf)
    return np.stack([resize_mask(one.argmax(axis=-1).astype(np.uint8), size) for one in scores])


def sure_labels(image: np.ndarray, maps: np.ndarray, *, foreground: float, background: float) -> np.ndarray:
    """The labels of the pixels that maps are sure of: what their seeds at two thresholds, each after a CRF, agree on.

    Args:
        image: uint8 (H, W, 3).
        maps: float32 (H, W, n), in [0, 1].
        foreground: a pixel has a class when it still has one at this threshold.
        background: it is background when it is at this one, too.

    Returns:
        uint8 (H, W), 0 background, k + 1 the k-th map, 255 unsure.

    Source: IRN's step "cam_to_ir_label".
    """
    seeds = [cut(maps, threshold) for threshold in (foreground, background)]
    return ir_labels(*crf_labels(image, seeds, 1 + maps.shape[-1])).astype(np.uint8)


def salient_labels(image: np.ndarray, maps: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """The best class where a picture is salient, background elsewhere, unless a class is certain there.

    Args:
        image: uint8 (H, W, 3).
        maps: float32 (H, W, n), in [0, 1].
        saliency: uint8 (H, W).

    Returns:
        uint8 (H, W), 0 background, k + 1 the k-th map.

    Source: EDAM's evaluation, step "CRF and saliency".
    """
    if not maps.shape[-1]:
        return np.zeros(maps.shape[:2], np.uint8)
    size, small = image.shape[:2], _bounded(image.shape[:2])
    unary = softmax_unary(background_scores(resize_bilinear(maps, small)))
    scores = _mean_field(resize_bicubic(image, small), np.asarray(unary)[None], CRFS["edam"])[0]
    return np.asarray(saliency_mask(resize_bilinear(scores, size), saliency)).astype(np.uint8)


def walked_maps(
    maps: np.ndarray, edges: np.ndarray, *, radius: int = 5, power: float = 1.0, beta: float = 10.0, steps: int = 256
) -> np.ndarray:
    """Heat maps spread by a random walk that edges hold back.

    Args:
        maps: float32 (H, W, n), in [0, 1].
        edges: float32 (ceil(H / 4), ceil(W / 4)), probabilities.
        radius: of a step, on the grid of the edges.
        power: of the maps.
        beta: power of the affinities.
        steps: how many.

    Returns:
        float32 (H, W, n), the largest value of all maps 1; of maps that are zero, zeros.

    Source: IRN's step "make_sem_seg_labels".
    """
    size, grid, count = maps.shape[:2], edges.shape, maps.shape[-1]
    if not count:
        return maps
    canvas = _padded_size(grid, _GRID // STRIDE)
    low = _padded(resize_bilinear(maps, grid) ** power, canvas, labels=_labels_for(count))
    options = {"radius": radius, "beta": beta, "steps": steps, "size": np.int32(grid)}
    walked = np.asarray(random_walk(low, _padded(edges, canvas), **options))
    return on_picture(walked[: grid[0], : grid[1], :count], size)


def _mean_field(image: np.ndarray, unary: np.ndarray, crf: CRF) -> np.ndarray:
    """`mean_field` of energies (m, H, W, n), padded and cut again."""
    *size, count = unary.shape[1:]
    canvas, labels = _padded_size(size, _GRID), _labels_for(count)
    energies = np.full((len(unary), *canvas, labels), np.inf, np.float32)
    energies[:, : size[0], : size[1], :count] = unary
    scores = mean_field(_padded(image, canvas), energies, crf, size=np.int32(size))
    return np.asarray(scores)[:, : size[0], : size[1], :count]


def _bounded(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) over the smallest whole number with which it is a million pixels at most."""
    factor = math.ceil(math.sqrt(size[0] * size[1] / _MOST_PIXELS))
    return max(size[0] // factor, 1), max(size[1] // factor, 1)


def _padded_size(size: tuple[int, int], grid: int) -> tuple[int, int]:
    return tuple(-(-length // grid) * grid for length in size)


def _padded(array: np.ndarray, canvas: tuple[int, int], *, labels: int | None = None) -> np.ndarray:
    """Zeros right and below, up to the canvas, and up to so many labels."""
    shape = (*canvas, *array.shape[2:]) if labels is None else (*canvas, labels)
    return np.pad(array, [(0, whole - length) for whole, length in zip(shape, array.shape, strict=True)])


def _labels_for(count: int) -> int:
    """A power of two that is at least the count."""
    return 1 << (count - 1).bit_length()
