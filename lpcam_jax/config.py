"""What a recipe can say: one frozen dataclass per part of a run.

A file under `configs/` returns a `Config`; the command line overrides single fields (`--data.root DIR`);
the resolved config is stored with the checkpoint. The defaults are the reference's recipe for VOC 2012.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures."""

    source: Literal["shapes", "folder", "voc_layout", "voc12", "coco14", "tfds"] = "folder"
    """shapes: drawn by this package; folder: images/ + labels.csv; voc_layout: pictures, masks and lists of ids, as in
    a VOC devkit; voc12, coco14: the benchmarks, prepared from their archives; tfds: a set that TFDS prepared"""
    root: str = ""
    """the folder of the data set; voc12, coco14: where the archives or the unpacked files are; tfds: the folder with
    dataset_info.json"""
    prepared: str = ""
    """voc12, coco14: where the prepared data set is kept; empty: root/prepared"""
    classes: tuple[str, ...] = ()
    """keep only these classes, in this order; empty: all of the data set"""
    train: str = "train_aug"
    """what the classifier is trained on. voc12, coco14, tfds: a split, such as train or train[:50%]; voc_layout: a file
    of ids, relative to root"""
    seeds: str = "train"
    """what is clustered, and what infer.py maps and scores; a split or file as for train"""
    validation: str = ""
    """what the validation mAP is measured on; a split or file as for train; empty: see held_out"""
    images: str = "JPEGImages"
    """voc_layout: folder of the pictures, relative to root"""
    masks: str = "SegmentationClass"
    """voc_layout: folder of the masks, relative to root"""
    present: int = 1
    """voc_layout: a class is in a picture when its mask holds at least this many of its pixels"""
    scenes: int = 600
    """shapes: how many scenes are drawn"""
    held_out: float = 0.1
    """share of the training pictures kept for the validation mAP, drawn with the run's seed, when no validation set is
    named"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The classifier whose features are mapped."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """bottlenecks a stage: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101"""
    width: int = 64
    """bottleneck width of the first stage; the last stage has 32 times as many channels"""
    stem_width: int = 64
    """channels after the first convolution"""
    layout: Literal["torchvision", "caffe"] = "torchvision"
    """where a stage's stride sits: on the 3x3 (torchvision) or on the first 1x1 (caffe, MSRA)"""
    stem_pool: Literal["symmetric", "ceil"] = "symmetric"
    """padding of the stem's max pool: one on each side, or bottom and right only (Caffe's ceil mode)"""
    output_stride: Literal[32, 16, 8] = 16
    """pixels a feature position; strides are taken out of the last stages to reach it"""
    weights: str = ""
    """the backbone's pretrained parameters, with torchvision's names: an .npz, .pth, .pt, .bin or .safetensors file, or
    hf:OWNER/NAME[/FILE] on the Hugging Face Hub; empty: random initialisation"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """order of the channels the weights expect"""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """subtracted from the 0..255 picture, in `channel_order`"""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """divides after the mean is subtracted"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the convolutions; parameters, batch norm and the head stay float32"""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the classifier is trained."""

    epochs: int = 5
    batch_size: int = 16
    crop: int = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    long_side: tuple[int, int] = (320, 640)
    """the long side is resized to a uniform integer of this range before cropping"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is the family's "PolyOptimizer": no momentum worth the name"""
    learning_rate: float = 0.1
    """of the backbone"""
    head_multiplier: float = 10.0
    """the head learns this many times faster"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay in this place; 0.9 would be ten times too hot"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    frozen: tuple[str, ...] = ("conv1", "bn1")
    """parts of the backbone that are not trained: conv1, bn1, layer1 .. layer4"""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """frozen: the stored statistics are used and kept; train: batch statistics over the global batch"""
    head_init: Literal["random", "zero"] = "random"
    checkpoint_every: int = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class Prototypes:
    """How local features become prototypes (paper, section 3.2)."""

    cam_scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, of the CAM that splits the features"""
    threshold: float = 0.1
    """tau: features where the CAM of a class is above belong to the class, below to its context"""
    clusters: int = 12
    """K, for the class and for the context each"""
    update: Literal["spherical", "mean"] = "spherical"
    """centre of a cluster: unit mean of unit features, or the reference's raw mean"""
    restarts: int = 1
    """k-means++ starts; the best objective is kept"""
    pictures: int | None = None
    """pictures drawn a class, with replacement; none: all that have the class"""
    sample: int = 8192
    """features kept a class and set, drawn uniformly: bounds the memory"""
    mu_f: float = 0.9
    """a class prototype's score is above this"""
    context: tuple[float, float] = (0.05, 0.9)
    """a context prototype's score is between these"""


@dataclass(frozen=True, kw_only=True)
class Inference:
    """How pictures become maps and maps become seeds."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image; at the first one classes are predicted and validated"""
    background: float = 0.3
    """seed threshold: where no map is above it there is background"""
    probability: float = 0.5
    """pictures without labels: classes at least this probable are mapped; the best one always is"""
    batch_pixels: int = 1_600_000
    """pixels of one device's batch, mirror images included: bounds the memory"""
    max_shapes: int = 12
    """at most this many picture shapes are compiled"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A whole run."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    prototypes: Prototypes = field(default_factory=Prototypes)
    inference: Inference = field(default_factory=Inference)
    seed: int = 0
    """of everything random: initialisation, order, crops, feature sample, clustering"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""


def to_json(config: Config) -> dict[str, Any]:
    """The config as plain JSON values."""
    return dataclasses.asdict(config)


def from_json(values: dict[str, Any], kind: type = Config) -> Any:
    """Rebuild a config from `to_json`; unknown fields raise ValueError, absent ones take the default."""
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {', '.join(unknown)}")
    return kind(**{name: _value(value, hints[name]) for name, value in values.items()})


def _value(value: Any, hint: Any) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_json(value, hint)
    if get_origin(hint) is tuple:
        return tuple(value)
    return value
