"""What a recipe can say: one frozen dataclass per part of a run.

A file under `configs/` returns a `Config` (a classifier and its prototypes), an `IRNConfig` (IRNet), an `AMNConfig`
(AMN) or a `SegmentationConfig` (DeepLab); the command line overrides single fields (`--data.root DIR`); the resolved
config is stored with the checkpoint. The defaults are the references' recipes for VOC 2012.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_origin, get_type_hints


@dataclass(frozen=True, kw_only=True)
class Data:
    """Which pictures."""

    source: Literal["shapes", "folder", "voc_layout", "voc12", "coco14", "tfds"] = "folder"
    """shapes: drawn by this package; folder: pictures with labels.csv, COCO JSON, VOC XML or a folder a class, told by
    looking; voc_layout: pictures, masks and lists of ids, as in a VOC devkit; voc12, coco14: the benchmarks, prepared
    from their archives; tfds: a set that TFDS prepared"""
    root: str = ""
    """the folder of the data set; voc12, coco14: where the archives or the unpacked files are; tfds: the folder with
    dataset_info.json"""
    prepared: str = ""
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
    maps: str = ""
    """irn, amn: folder of heat maps that infer.py wrote for the training pictures"""
    images: str = "JPEGImages"
    """voc_layout: folder of the pictures, relative to root"""
    truth: str = "SegmentationClass"
    """voc_layout: folder of the true masks, relative to root"""
    present: int = 1
    """voc_layout: a class is in a picture when its mask holds at least this many of its pixels"""
    scenes: int = 600
    """shapes: how many scenes are drawn"""
    held_out: float = 0.1
    """share of the training pictures kept for validation, drawn with the run's seed, when no validation set is named"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The network's ResNet; with a linear head it is the classifier whose features are mapped."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """bottlenecks a stage: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101"""
    width: int = 64
    """bottleneck width of the first stage; the last stage has 32 times as many channels"""
    stem_width: int = 64
    """channels after the first convolution"""
    layout: Literal["torchvision", "caffe"] = "torchvision"
    """where a stage's stride sits: on the 3x3 (torchvision) or on the first 1x1 (caffe, MSRA)"""
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric"
    """padding of the stem's max pool: one on each side, bottom and right only (Caffe's ceil mode), or both
    (DeepLabV2's)"""
    output_stride: Literal[32, 16, 8] = 16
    """pixels a feature position; strides are taken out of the last stages to reach it"""
    weights: str = ""
    """the backbone's pretrained parameters, with torchvision's names: an .npz, .pth, .pt, .bin or .safetensors file, or
    hf:OWNER/NAME[/FILE] on the Hugging Face Hub; or the --workdir of another run, whose network is then the default of
    the flags here; empty: random initialisation"""
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
    least_steps: int = 1
    """of a small data set there are more epochs, until there are so many steps"""
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
    taught: int | None = None
    """beyond the paper, LPCAM-T: pictures from whose refined seeds one direction a class is taught; bounds the memory.
    None: the prototypes alone"""


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How pictures of many sizes share batches."""

    batch_pixels: int = 1_600_000
    """pixels of one device's batch, mirror images included: bounds the memory"""
    max_shapes: int = 12
    """at most this many picture shapes are compiled"""
    precision: Literal["", "float32", "bfloat16"] = ""
    """of the convolutions, where results are written; empty: the model's. bfloat16 is for GPUs and TPUs"""


@dataclass(frozen=True, kw_only=True)
class Inference(Batches):
    """How pictures become maps and maps become seeds."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image; at the first one classes are predicted and validated"""
    background: float = 0.3
    """seed threshold: where no map is above it there is background"""
    probability: float = 0.5
    """pictures without labels: classes at least this probable are mapped; the best one always is"""


@dataclass(frozen=True, kw_only=True)
class Config:
    """A classifier, its prototypes, and the heat maps made with them."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    prototypes: Prototypes = field(default_factory=Prototypes)
    inference: Inference = field(default_factory=Inference)
    seed: int = 0
    """of everything random: initialisation, order, crops, feature sample, clustering"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""


@dataclass(frozen=True, kw_only=True)
class DeepLab(Model):
    """The segmentation network: a ResNet, dilated where a stride was taken out, and a DeepLab head.

    The defaults are the ResNet-101 of DeepLabV2 in the layout of its Caffe weights.
    """

    head: Literal["deeplabv2", "deeplabv3plus"] = "deeplabv2"
    """deeplabv2: four dilated convolutions, maximum over the scales 1, 0.75 and 0.5; deeplabv3plus: atrous pyramid and
    decoder"""
    rates: tuple[int, ...] = ()
    """dilations of the head, deeplabv2's at output stride 8, deeplabv3plus's at 16, scaled for others; empty: the
    papers', (6, 12, 18, 24) and (6, 12, 18). Crops should be larger than they reach"""
    head_width: int = 256
    """deeplabv3plus: channels of pyramid and decoder"""
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    layout: Literal["torchvision", "caffe"] = "caffe"
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric_ceil"
    output_stride: Literal[32, 16, 8] = 8
    channel_order: Literal["rgb", "bgr"] = "bgr"
    mean: tuple[float, float, float] = (104.008, 116.669, 122.675)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SegmentationTraining:
    """How a segmentation network is trained from masks."""

    steps: int = 20_000
    batch_size: int = 10
    accumulate: int = 2
    """the gradient of a step is the mean over this many parts of its batch, computed one after the other"""
    crop: int = 321
    """side of the square crop; smaller pictures are padded right and bottom, with the mean colour and the label 255"""
    scales: tuple[float, ...] = (0.5, 0.75, 1.0, 1.25, 1.5)
    """each picture is resized by one of these before cropping"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 2.5e-4
    """of the backbone"""
    head_multiplier: float = 10.0
    """the head learns this many times faster"""
    bias_multiplier: float = 20.0
    """the biases of the head's convolutions learn this many times faster than the backbone, and do not decay"""
    weight_decay: float = 5e-4
    momentum: float = 0.9
    """sgd only"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    hold: int = 10
    """the learning rate changes every so many steps"""
    frozen: tuple[str, ...] = ()
    """parts of the backbone that are not trained: conv1, bn1, layer1 .. layer4"""
    batch_norm: Literal["fixed", "frozen", "train"] = "fixed"
    """of the backbone. fixed: nothing of it is trained; frozen: scale and shift are, with the stored statistics;
    train: batch statistics. The norms of deeplabv3plus's head are new and always train"""
    average: float = 0.0
    """decay a step of the running mean of the parameters, which is then what is validated and used, such as 0.999;
    0: none"""
    validate_every: int = 2000
    """steps between validations; there is one after the last step, too"""
    checkpoint_every: int = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class SegmentationInference(Batches):
    """How pictures become segmentation masks."""

    scales: tuple[float, ...] = (1.0,)
    """picture scales whose probabilities are averaged"""
    mirror: bool = False
    """average over mirror images, too"""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """A segmentation network, trained from masks, and the masks made with it."""

    data: Data = field(default_factory=Data)
    model: DeepLab = field(default_factory=DeepLab)
    training: SegmentationTraining = field(default_factory=SegmentationTraining)
    inference: SegmentationInference = field(default_factory=SegmentationInference)
    seed: int = 0
    """of everything random: initialisation, order, crops, dropout"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""


@dataclass(frozen=True, kw_only=True)
class SureLabels:
    """Which pixels of a heat map are learned from: those whose label two thresholds agree on, each after a CRF."""

    method: str = "lpcam"
    """whose maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; the two
    thresholds below are those of lpcam"""
    foreground: float = 0.45
    """a pixel has a class when it still has one at this threshold"""
    background: float = 0.25
    """it is background when it is at this one; all others are unsure, and not learned from"""


@dataclass(frozen=True, kw_only=True)
class IRNTraining:
    """How IRNet is trained; its backbone stays as it is."""

    epochs: int = 3
    least_steps: int = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: int = 32
    crop: int = 512
    """side of the square crop, a multiple of 4; smaller pictures are padded with zeros after normalisation"""
    scale_range: tuple[float, float] = (0.5, 1.5)
    """each picture is resized by a number between these before cropping"""
    radius: int = 10
    """pairs of positions closer than this are compared; in fours of pixels"""
    displacement: bool = True
    """train the displacement branch, too. Only IRN's instance masks need it: it shares nothing that learns with the
    edge branch, whose masks are the same without"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    """of the edge branch"""
    displacement_multiplier: float = 10.0
    """the displacement branch learns this many times faster"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay in this place; 0.9 would be ten times too hot"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    checkpoint_every: int = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class Refinement(Batches):
    """How heat maps become pseudo masks."""

    method: str = ""
    """whose maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; empty: those
    that IRNet was trained on, or else the last in each file: lpcam or, where a run was taught, taught"""
    background: float | None = None
    """where no map is above it there is background; none: 0.35 after the random walk, else 0.3"""
    radius: int = 5
    """random walk: how far a step reaches; in fours of pixels"""
    power: float = 1.0
    """random walk: power of the maps before it; with AMN's, its authors take 1.3"""
    beta: float = 10.0
    """random walk: power of the affinities; the higher, the harder edges hold"""
    steps: int = 256
    """random walk: how many steps are taken"""


@dataclass(frozen=True, kw_only=True)
class IRNConfig:
    """IRNet, trained from heat maps, and the pseudo masks made with it."""

    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    labels: SureLabels = field(default_factory=SureLabels)
    training: IRNTraining = field(default_factory=IRNTraining)
    inference: Refinement = field(default_factory=Refinement)
    seed: int = 0
    """of everything random: initialisation, order, crops"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""


@dataclass(frozen=True, kw_only=True)
class AMNModel(Model):
    """The activation manipulation network: a ResNet, weighted by the labels, and four dilated convolutions."""

    rates: tuple[int, ...] = ()
    """dilations of the convolutions at output stride 16, scaled for others; empty: the paper's, (6, 12, 18, 24). Crops
    should be larger than they reach"""


@dataclass(frozen=True, kw_only=True)
class AMNTraining:
    """How AMN is trained: by Adam at a constant rate, with the decay added to the gradient."""

    epochs: int = 5
    least_steps: int = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: int = 16
    crop: int = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    scale_range: tuple[float, float] = (0.5, 1.5)
    """each picture is resized by a number between these before cropping"""
    smoothing: float = 0.4
    """of the target: so much is shared by the classes that are not the pixel's label"""
    learning_rate: float = 5e-6
    """of the backbone"""
    head_multiplier: float = 20.0
    """label encoder and convolutions learn this many times faster"""
    weight_decay: float = 1e-4
    frozen: tuple[str, ...] = ("conv1", "bn1")
    """parts of the backbone that are not trained: conv1, bn1, layer1 .. layer4. Batch norm uses stored statistics"""
    checkpoint_every: int = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class AMNInference(Batches):
    """How pictures become AMN's maps and maps become seeds."""

    method: str = ""
    """whose maps AMN starts from: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files;
    empty: those that it was trained on. What is background for sure in them is not stretched"""
    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, whose logits are averaged"""
    background: float = 0.25
    """seed threshold: where no map is above it there is background"""


@dataclass(frozen=True, kw_only=True)
class AMNConfig:
    """AMN, trained from heat maps, and the better heat maps made with it."""

    data: Data = field(default_factory=Data)
    model: AMNModel = field(default_factory=AMNModel)
    labels: SureLabels = field(default_factory=SureLabels)
    training: AMNTraining = field(default_factory=AMNTraining)
    inference: AMNInference = field(default_factory=AMNInference)
    seed: int = 0
    """of everything random: initialisation, order, crops, dropout"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""


AnyConfig = Config | IRNConfig | AMNConfig | SegmentationConfig
KINDS: dict[str, type[AnyConfig]] = {
    "classifier": Config,
    "irn": IRNConfig,
    "amn": AMNConfig,
    "segmentation": SegmentationConfig,
}


def kind_of(config: AnyConfig) -> str:
    """What a run of this config trains, a key of KINDS."""
    return next(kind for kind, its_type in KINDS.items() if isinstance(config, its_type))


def at_precision(config: AnyConfig, batches: Batches) -> AnyConfig:
    """The config with the precision that results are to have, if any is asked for."""
    if not batches.precision:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, precision=batches.precision))


def with_network_of(model: Model, other: Model) -> Model:
    """The model with what stored parameters fix, depth, widths, layout and input, taken from another."""
    fixed = ("blocks", "width", "stem_width", "layout", "stem_pool", "channel_order", "mean", "std")
    return dataclasses.replace(model, **{name: getattr(other, name) for name in fixed})


def to_json(config: AnyConfig) -> dict[str, Any]:
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
