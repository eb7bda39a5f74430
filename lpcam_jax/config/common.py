"""What several kinds of recipe have: the pictures, a ResNet, and how pictures share batches."""

from dataclasses import dataclass
from typing import Literal


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
class Batches:
    """How pictures of many sizes share batches."""

    batch_pixels: int = 1_600_000
    """pixels of one device's batch, mirror images included: bounds the memory"""
    max_shapes: int = 12
    """at most this many picture shapes are compiled"""
    precision: Literal["", "float32", "bfloat16"] = ""
    """of the convolutions, where results are written; empty: the model's. bfloat16 is for GPUs and TPUs"""
