"""Parts of configs shared by several systems: data, batches, sure labels, and the fields of every config."""

from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from .numbers import MAY_CHANGE, Count, OptionalCount, Seed, Share


@dataclass(frozen=True, kw_only=True)
class Data:
    """Data set and splits."""

    source: Literal["shapes", "folder", "voc_layout", "voc12", "coco14", "tfds"] = "folder"
    """shapes: drawn by this package; folder: pictures with labels.csv, COCO JSON, VOC XML, LabelMe, YOLO, Label Studio,
    CVAT or one folder per class (detected automatically); voc_layout: pictures, masks and lists of ids, as in a VOC
    devkit; voc12, coco14: the benchmarks, prepared from their archives; tfds: a data set prepared by TFDS"""
    root: Annotated[str, MAY_CHANGE] = ""
    """folder of the data set; voc12, coco14: folder of the archives or the unpacked files; tfds: folder with
    dataset_info.json"""
    prepared: Annotated[str, MAY_CHANGE] = ""
    """voc12, coco14: folder for the prepared data set; empty: root/prepared"""
    classes: tuple[str, ...] = ()
    """keep only these classes, in this order; empty: all of the data set"""
    train: str = "all"
    """training pictures. voc12, coco14, tfds: a split; voc_layout: a file of ids, relative to root; shapes, folder:
    all. Each can be sliced, as in train[:50%] or all[400:]"""
    seeds: str = "all"
    """pictures that are clustered, and that infer.py maps and scores; same syntax as train"""
    validation: str = ""
    """validation pictures; same syntax as train; empty: see held_out"""
    masks: str = ""
    """segmentation: folder of masks, ID.png, to train on, such as the seeds/ that infer.py writes; empty: the true
    masks of the data set"""
    maps: Annotated[str, MAY_CHANGE] = ""
    """irn, psa, amn: folder of heat maps that infer.py wrote for the training pictures"""
    images: str = "JPEGImages"
    """voc_layout: folder of the pictures, relative to root"""
    truth: str = "SegmentationClass"
    """voc_layout: folder of the true masks, relative to root"""
    present: int = 1
    """voc_layout: minimum number of pixels in the mask for a class to be a label of the picture"""
    longest: OptionalCount = 640
    """pictures with a longer side, in pixels, are shrunk to it for the networks, in training and in inference: objects
    of photographs of many megapixels are larger than any that networks know; what is made of them has the size of the
    picture. none: no picture is shrunk"""
    scenes: int = 600
    """shapes: number of scenes to draw"""
    held_out: Share = 0.1
    """fraction of the training pictures held out for validation, drawn with the run's seed, if --data.validation is
    empty"""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How pictures of many sizes share batches in inference."""

    batch_pixels: Count = 1_600_000
    """maximum number of pixels in one device's batch, mirror images included; bounds the memory"""
    max_shapes: Count = 12
    """maximum number of picture shapes to compile"""
    precision: Literal["", "float32", "bfloat16"] = ""
    """precision of the network in inference; empty: the model's. bfloat16 is for GPUs and TPUs"""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The fields of every system's config; a system adds `model`, `training` and `inference`."""

    kind: ClassVar[str]
    """name of the system in config.json and in the registry"""

    data: Data = field(default_factory=Data)
    seed: Seed = 0
    """random seed of initialisation, order, crops, dropout, feature sample and clustering"""
    limit: int | None = None
    """use only the first LIMIT pictures, for a dry run"""


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """How the local features of a network become prototypes (paper, section 3.2)."""

    threshold: float = 0.1
    """tau: features belong to a class where its CAM is above this, to its context where it is below"""
    clusters: Count = 12
    """K, number of clusters for each class and for each context"""
    update: Literal["spherical", "mean"] = "spherical"
    """cluster centres: spherical, the normalized mean of unit features; or mean, the reference's raw mean"""
    restarts: Count = 1
    """k-means++ restarts; the result with the best objective is kept"""
    pictures: OptionalCount = None
    """pictures drawn per class, with replacement; none: all pictures of the class"""
    sample: Count = 8192
    """features kept for each class and for each context, drawn uniformly; bounds the memory"""
    mu_f: float = 0.9
    """lower bound on the score of a class prototype"""
    context: tuple[float, float] = (0.05, 0.9)
    """lower and upper bound on the score of a context prototype; the upper one is mu_b"""


@dataclass(frozen=True, kw_only=True)
class SureLabels:
    """Training labels from heat maps: pixels on whose label the seeds at two thresholds agree, each after a CRF."""

    method: str = "lpcam"
    """method of the heat maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another array
    in their files; the default thresholds are for lpcam"""
    foreground: float = 0.45
    """upper seed threshold: a pixel is labelled with a class if it has one at this threshold"""
    background: float = 0.25
    """lower seed threshold: a pixel is labelled background if it is background at this threshold; all others are
    unsure and not trained on"""


def at_precision(config: Any) -> Any:
    """The config with `model.precision` replaced by `inference.precision`, if given."""
    if not config.inference.precision:
        return config
    return replace(config, model=replace(config.model, precision=config.inference.precision))
