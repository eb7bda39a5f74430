"""What recipes of several systems share: the pictures, what is learned from heat maps, how pictures share batches."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from .numbers import MAY_CHANGE, Count, Seed, Share


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures."""

    source: Literal["shapes", "folder", "voc_layout", "voc12", "coco14", "tfds"] = "folder"
    """shapes: drawn by this package; folder: pictures with labels.csv, COCO JSON, VOC XML or a folder a class, told by
    looking; voc_layout: pictures, masks and lists of ids, as in a VOC devkit; voc12, coco14: the benchmarks, prepared
    from their archives; tfds: a set that TFDS prepared"""
    root: Annotated[str, MAY_CHANGE] = ""
    """the folder of the data set; voc12, coco14: where the archives or the unpacked files are; tfds: the folder with
    dataset_info.json"""
    prepared: Annotated[str, MAY_CHANGE] = ""
    """voc12, coco14: where the prepared data set is kept; empty: root/prepared"""
    classes: tuple[str, ...] = ()
    """keep only these classes, in this order; empty: all of the data set"""
    train: str = "all"
    """what is trained on. voc12, coco14, tfds: a split; voc_layout: a file of ids, relative to root; shapes, folder:
    all. Any of them can be cut, as in train[:50%] or all[400:]"""
    seeds: str = "all"
    """what is clustered, and what infer.py maps and scores; as for train"""
    validation: str = ""
    """what is validated on; as for train; empty: see held_out"""
    masks: str = ""
    """segmentation: folder of masks, ID.png, to train on, such as the seeds/ that infer.py writes; empty: the true
    masks of the data set"""
    maps: Annotated[str, MAY_CHANGE] = ""
    """irn, amn: folder of heat maps that infer.py wrote for the training pictures"""
    images: str = "JPEGImages"
    """voc_layout: folder of the pictures, relative to root"""
    truth: str = "SegmentationClass"
    """voc_layout: folder of the true masks, relative to root"""
    present: int = 1
    """voc_layout: a class is in a picture when its mask holds at least this many of its pixels"""
    scenes: int = 600
    """shapes: how many scenes are drawn"""
    held_out: Share = 0.1
    """share of the training pictures kept for validation, drawn with the run's seed, when no validation set is named"""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How pictures of many sizes share batches."""

    batch_pixels: Count = 1_600_000
    """pixels of one device's batch, mirror images included: bounds the memory"""
    max_shapes: Count = 12
    """at most this many picture shapes are compiled"""
    precision: Literal["", "float32", "bfloat16"] = ""
    """of the convolutions, where results are written; empty: the model's. bfloat16 is for GPUs and TPUs"""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What the config of every system has; a system adds `model`, `training` and `inference`."""

    kind: ClassVar[str]
    """name of the system in config.json and in the registry"""

    data: Data = field(default_factory=Data)
    seed: Seed = 0
    """random seed of everything: initialisation, order, crops, dropout, feature sample, clustering"""
    limit: int | None = None
    """use only the first LIMIT pictures, for a dry run"""


@dataclass(frozen=True, kw_only=True)
class SureLabels:
    """Which pixels of a heat map are learned from: those whose label two thresholds agree on, each after a CRF."""

    method: str = "lpcam"
    """which method's maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; the
    two thresholds below are those of lpcam"""
    foreground: float = 0.45
    """a pixel has a class when it still has one at this threshold"""
    background: float = 0.25
    """it is background when it is at this one; all others are unsure, and not learned from"""


def at_precision(config: Any) -> Any:
    """The config as results are computed with it: at `inference.precision`, where that is given."""
    if not config.inference.precision:
        return config
    return replace(config, model=replace(config.model, precision=config.inference.precision))
