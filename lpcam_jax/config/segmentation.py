"""A segmentation network, trained from masks, and the masks made with it. The defaults are DeepLabV2's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Literal

from .common import Batches, Data, Model


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
