"""Training labels of psa: what two CRFs agree on, averaged over each position of the grid.

class        where it has the most of the low CRF's scores, whose background (1 - max)^low is large
background   where it has the most of the high CRF's, whose background (1 - max)^high is small
255          elsewhere, and outside of the picture

labels/ID.npz         classes (n,) and their names; low and high, float16 (n, H, W): the scores of the classes,
                      those of the background being the rest
labels/protocol.json  how they were made
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...class_activation import resize_bilinear
from ...data.augment import color_jitter, random_crop, random_mirror
from ...data.pipeline import Augmentation, Batch
from ...data.records import Record, RecordSource
from ...data.resizing import resize_bicubic, shrunk_size
from ...refine.pictures import background_crfs
from ...results.folder import ResultFolder
from ...results.map_folder import MapFolder
from ...results.predictions import mapped_pictures, read_protocol
from ...seeds import IGNORE
from ...training.run import Run
from ..sure_labels import keep_labels
from .config import PSALabels, PSATraining

CRF_NAMES = ("low", "high")


class ScoredPicture(NamedTuple):
    """image: uint8 (H, W, 3); scores: float32 (2, n, H, W), of both CRFs for the classes of the picture."""

    image: np.ndarray
    scores: np.ndarray


class ScoredPictures:
    """The pictures of a source with the scores in a folder.

    Args:
        source: the pictures.
        scores: their scores.
        longest: pixels of the longest side; larger pictures are shrunk to it. None: as they are.
    """

    def __init__(self, source: RecordSource, scores: MapFolder, longest: int | None):
        self._source, self._scores, self._longest = source, scores, longest
        self.ids, self.labels, self.class_names = source.ids, source.labels, source.class_names

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> ScoredPicture:
        record = self._source[index]
        (_, scores), _ = self._scores.read(record.id, classes=len(self.class_names))
        both = shrunk_maps(np.stack([scores[name] for name in CRF_NAMES]), self._longest)
        return ScoredPicture(resize_bicubic(record.image, both.shape[-2:]), both)


def shrunk_maps(maps: np.ndarray, longest: int | None) -> np.ndarray:
    """Maps of the size at which the network sees their picture: float (*b, n, H, W) -> (*b, n, H', W')."""
    size = shrunk_size(maps.shape[-2:], longest)
    if size == maps.shape[-2:]:
        return maps
    return np.moveaxis(resize_bilinear(np.moveaxis(maps, -3, -1), size), -1, -3)


def score_pictures(run: Run, pictures: RecordSource) -> ScoredPictures:
    """Attach the scores of both CRFs to the pictures, making the missing ones.

    Args:
        run: a run of the affinity network; its config names the heat maps, its directory receives the scores.
        pictures: the pictures; those without maps are left out.

    Raises:
        UserError: there are no maps, they do not match the pictures, or the run's labels were made from other maps.

    Source: psa, infer_cls.py, its CRFs.
    """
    config, settings = run.config, run.config.labels
    pictures, maps = mapped_pictures(pictures, config.data.maps, settings.method)
    protocol = labels_protocol(settings, maps, config.data.maps)
    folder = ResultFolder(run.directory / "labels", protocol, what="labels", flag="--workdir")
    scores = MapFolder(folder.directory, CRF_NAMES)

    def write(record: Record, classes: np.ndarray, picture_maps: np.ndarray) -> None:
        both = background_crfs(record.image, picture_maps, (settings.low, settings.high))[:, 1:]
        scores.write(record.id, classes, run.class_names, dict(zip(CRF_NAMES, both, strict=True)))

    keep_labels(run, pictures, maps, scores.file, write)
    return ScoredPictures(pictures, scores, config.data.longest)


def labels_protocol(settings: PSALabels, maps: MapFolder, where: str | Path) -> dict[str, Any]:
    """Describe how the labels are made, as plain JSON values."""
    [method] = maps.methods
    return {
        "maps": read_protocol(maps) or Path(where).name,
        "method": method,
        "low": settings.low,
        "high": settings.high,
    }


def labelled_crops(training: PSATraining, *, stride: int) -> Augmentation:
    """Random crops with labels on the grid of the features.

    Args:
        training: crop and jitter.
        stride: pixels per position of the grid.

    Returns:
        ScoredPicture -> image uint8 (crop, crop, 3), black around a picture that is smaller; box int32 (4,), of the
        whole crop; mask uint8 (g, g), 0 background, k + 1 the picture's k-th class, 255 unsure, g = crop / stride.

    Source: psa, voc12/data.py, VOC12AffDataset.
    """

    def augmented(picture: ScoredPicture, rng: np.random.Generator) -> Batch:
        image = color_jitter(rng, picture.image, *training.jitter)
        # As bytes, to be cropped and mirrored with the picture.
        scores = np.moveaxis(np.round(255 * with_background(picture.scores)), (0, 1), (-2, -1)).astype(np.uint8)
        stacked = np.dstack([image, scores.reshape(*image.shape[:2], -1)])
        canvas, _ = random_crop(rng, random_mirror(rng, stacked), crop=training.crop)
        grid = training.crop // stride
        pooled = canvas[..., 3:].reshape(grid, stride, grid, stride, -1).mean(axis=(1, 3))
        return {
            "image": np.ascontiguousarray(canvas[..., :3]),
            # All of it: what is around a picture is black to the network, as in psa.
            "box": np.array([0, 0, training.crop, training.crop], np.int32),
            "mask": agreed(*np.split(pooled, 2, axis=-1)),
        }

    return augmented


def with_background(scores: np.ndarray) -> np.ndarray:
    """float (m, n, ...), of classes -> (m, n + 1, ...): the background in front, what the classes leave of 1."""
    background = np.maximum(1 - scores.sum(axis=1, keepdims=True), 0)
    return np.concatenate([background, scores], axis=1)


def agreed(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The labels of both CRFs' scores.

    Args:
        low: float (*b, n + 1), background first; all 0 outside of the picture.
        high: float (*b, n + 1).

    Returns:
        uint8 (*b): 0 where the high scores say background, k + 1 where the low ones say the k-th class, 255 elsewhere.
    """
    label = low.argmax(axis=-1)
    label = np.where(label > 0, label, IGNORE)
    label = np.where(high.argmax(axis=-1) == 0, 0, label)
    return np.where(np.maximum(low, high).max(axis=-1) > 0, label, IGNORE).astype(np.uint8)
