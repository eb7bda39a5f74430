"""Refinement of one picture's heat maps by its colours: NumPy in, NumPy out.

Pictures of more than a million pixels are refined at a half of their size, a third, and so on, to bound the memory.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..class_activation import resize_bilinear
from ..data.records import Record, RecordSource
from ..data.resizing import resize_bicubic, resize_mask
from ..machine.devices import finishing
from ..machine.padding import canvas_of, padded, power_of_two
from ..seeds import ir_labels, seed_mask
from . import Refine
from .crf import CRF, CRFS, label_unary, mean_field, softmax_unary
from .pixel_adaptive import pixel_adaptive
from .saliency import background_scores, saliency_mask
from .saliency_maps import SaliencyMaps

_MOST_PIXELS, _LONGEST = 1 << 20, 1 << 13


class Refinement(NamedTuple):
    """A training-free refinement of seeds to pseudo masks; its truth value is whether it changes the seeds.

    Attributes:
        refine: "crf": seeds refined by a CRF; "par": seeds of maps refined by `adapted_maps`; "none": unrefined seeds.
        background: seed threshold.
        salient: saliency maps for EDAM's rule, which has no threshold (only with "crf"); None: no saliency.
    """

    refine: Refine
    background: float
    salient: SaliencyMaps | None = None

    def __bool__(self) -> bool:
        return self.refine != "none"

    @property
    def protocol(self) -> dict[str, Any]:
        """Protocol entries about the refinement, as plain JSON values."""
        return {"refine": self.refine, "saliency": self.salient.protocol if self.salient else False}

    def prepare(self, source: RecordSource) -> None:
        """Make what it needs of these pictures and is not there yet, before any of them is refined."""
        if self.salient:
            self.salient.prepare(source)

    def inputs(self, name: str) -> tuple[Path, ...]:
        """The files that the pseudo mask of a picture depends on, beside its maps, as `results.origins.Inputs`."""
        return self.salient.inputs(name) if self.salient else ()

    def labels(self, record: Record, maps: np.ndarray) -> np.ndarray:
        """The pseudo mask of a picture.

        Args:
            record: the picture.
            maps: float (n, H, W), in [0, 1].

        Returns:
            uint8 (H, W), 0 background, k + 1 the k-th map.
        """
        if self.salient:
            return salient_labels(record.image, maps, self.salient.read(record.id, maps.shape[1:]))
        if self.refine == "par":
            return cut(adapted_maps(record.image, maps), self.background)
        seed = cut(maps, self.background)
        return crf_labels(record.image, [seed], 1 + len(maps))[0] if self else seed


def cut(maps: np.ndarray, background: float) -> np.ndarray:
    """Cut the seed from maps float (n, H, W), n >= 0: uint8 (H, W), 0 background, k + 1 the k-th map."""
    if not len(maps):
        return np.zeros(maps.shape[1:], np.uint8)
    channels_last = np.moveaxis(maps.astype(np.float32, copy=False), 0, -1)  # NumPy compares float16 slowly
    return seed_mask(channels_last, np.ones(len(maps)), background=background).astype(np.uint8)


def crf_labels(image: np.ndarray, labels: Sequence[np.ndarray], count: int, *, crf: CRF = CRFS["irn"]) -> np.ndarray:
    """Refine labellings of a picture by a CRF, which aligns each with the edges of the picture.

    Args:
        image: uint8 (H, W, 3).
        labels: m arrays int (H, W), 0 .. count - 1.
        count: number of labels, including the background.
        crf: parameters of the CRF.

    Returns:
        uint8 (m, H, W).

    Source: IRN's step "cam_to_ir_label".
    """
    if count == 1:
        return np.zeros((len(labels), *image.shape[:2]), np.uint8)
    size, small = image.shape[:2], bounded_size(image.shape[:2])
    shrunk = np.stack([resize_mask(np.uint8(labelling), small) for labelling in labels])
    scores = _mean_field(resize_bicubic(image, small), np.asarray(label_unary(shrunk, count)), crf)
    return np.stack([resize_mask(score.argmax(axis=-1).astype(np.uint8), size) for score in scores])


def crf_mask(image: np.ndarray, probabilities: np.ndarray, *, crf: CRF) -> np.ndarray:
    """Refine the output of a segmentation network by a CRF, which aligns it with the edges of the picture.

    Args:
        image: uint8 (H, W, 3).
        probabilities: float (n, h, w), in [0, 1], at the size of the picture or the `bounded_size` of it.
        crf: parameters of the CRF.

    Returns:
        uint8 (H, W), 0 .. n - 1.

    Source: the last steps of DeepLabV2 and MCTformer.
    """
    size, small = image.shape[:2], bounded_size(image.shape[:2])
    unary = np.asarray(softmax_unary(resize_bilinear(np.moveaxis(probabilities, 0, -1), small)))
    [scores] = _mean_field(resize_bicubic(image, small), unary[None], crf, labels=len(probabilities))
    return resize_mask(scores.argmax(axis=-1).astype(np.uint8), size)


def sure_labels(image: np.ndarray, maps: np.ndarray, *, foreground: float, background: float) -> np.ndarray:
    """Sure labels: where the seeds at two thresholds, each refined by a CRF, agree.

    Args:
        image: uint8 (H, W, 3).
        maps: float (n, H, W), in [0, 1].
        foreground: upper threshold; a pixel is labelled with a class if it has one in this seed.
        background: lower threshold; a pixel is labelled background if it is background in both seeds.

    Returns:
        uint8 (H, W), 0 background, k + 1 the k-th map, 255 unsure.

    Source: IRN's step "cam_to_ir_label".
    """
    seeds = [cut(maps, threshold) for threshold in (foreground, background)]
    return ir_labels(*crf_labels(image, seeds, 1 + len(maps))).astype(np.uint8)


def background_crfs(image: np.ndarray, maps: np.ndarray, exponents: Sequence[float]) -> np.ndarray:
    """The scores of CRFs over the maps and a background, (1 - max of the maps)^exponent, one for each exponent.

    Args:
        image: uint8 (H, W, 3).
        maps: float (n, H, W), in [0, 1].
        exponents: m of them; the larger, the smaller the background.

    Returns:
        float32 (m, n + 1, H, W), summing to 1 over n + 1, background first.

    Source: psa, infer_cls.py.
    """
    if not len(maps):
        return np.ones((len(exponents), 1, *maps.shape[1:]), np.float32)
    size, small = image.shape[:2], bounded_size(image.shape[:2])
    low = resize_bilinear(np.moveaxis(maps.astype(np.float32, copy=False), 0, -1), small)
    unary = np.stack([softmax_unary(background_scores(low, alpha=exponent)) for exponent in exponents])
    scores = _mean_field(resize_bicubic(image, small), unary, CRFS["psa"])
    return np.moveaxis(resize_bilinear(scores, size), -1, 1)


def salient_labels(image: np.ndarray, maps: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """EDAM's rule: the best class where the picture is salient, background elsewhere unless a class is certain there.

    Args:
        image: uint8 (H, W, 3).
        maps: float (n, H, W), in [0, 1].
        saliency: uint8 (H, W).

    Returns:
        uint8 (H, W), 0 background, k + 1 the k-th map.

    Source: EDAM's evaluation, step "CRF and saliency".
    """
    if not len(maps):
        return np.zeros(maps.shape[1:], np.uint8)
    size, small = image.shape[:2], bounded_size(image.shape[:2])
    channels_last = np.moveaxis(maps.astype(np.float32, copy=False), 0, -1)
    unary = softmax_unary(background_scores(resize_bilinear(channels_last, small)))
    scores = _mean_field(resize_bicubic(image, small), np.asarray(unary)[None], CRFS["edam"])[0]
    return np.asarray(saliency_mask(resize_bilinear(scores, size), saliency)).astype(np.uint8)


def adapted_maps(image: np.ndarray, maps: np.ndarray, *, steps: int = 10) -> np.ndarray:
    """Heat maps averaged over neighbours of a similar colour, at half the picture's resolution (`pixel_adaptive`).

    Args:
        image: uint8 (H, W, 3).
        maps: float (n, H, W), in [0, 1].
        steps: how often.

    Returns:
        float32 (n, H, W), in [0, 1].

    Source: AFA, which refines at half the resolution, too; there maps have a background beside them, here a threshold.
    """
    (count, *size) = maps.shape
    if not count:
        return maps
    small = tuple(-(-length // 2) for length in bounded_size(size))
    low = resize_bilinear(np.moveaxis(maps.astype(np.float32, copy=False), 0, -1), small)
    canvas = canvas_of(small)
    arguments = padded(resize_bicubic(image, small), canvas), padded(low, canvas, labels=power_of_two(count))
    with finishing():
        adapted = np.asarray(pixel_adaptive(*arguments, steps=steps, size=np.int32(small)))
    return np.moveaxis(resize_bilinear(adapted[: small[0], : small[1], :count], tuple(size)), -1, 0)


def _mean_field(image: np.ndarray, unary: np.ndarray, crf: CRF, *, labels: int | None = None) -> np.ndarray:
    """`mean_field` of energies (m, H, W, n), with padded shapes; `labels` if n is always the same, and not padded."""
    *size, count = unary.shape[1:]
    canvas, labels = canvas_of(size), labels or 1 + power_of_two(count - 1)
    energies = np.full((len(unary), *canvas, labels), np.inf, np.float32)
    energies[:, : size[0], : size[1], :count] = unary
    with finishing(scatters=True):
        scores = np.asarray(mean_field(padded(image, canvas), energies, crf, size=np.int32(size)))
    return scores[:, : size[0], : size[1], :count]


def bounded_size(size: tuple[int, int]) -> tuple[int, int]:
    """(H, W) divided by the smallest integer that makes it at most a million pixels, and no side longer than 8,192."""
    factor = math.ceil(max(math.sqrt(size[0] * size[1] / _MOST_PIXELS), max(size) / _LONGEST))
    return max(size[0] // factor, 1), max(size[1] // factor, 1)
