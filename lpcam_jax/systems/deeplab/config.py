"""A segmentation network, trained from masks, and the masks made with it. The defaults are DeepLabV2's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import ResNetConfig
from ...config.common import Batches, Data
from ...config.numbers import MAY_CHANGE, Count, Scales, Seed


@dataclass(frozen=True, kw_only=True)
class DeepLabModel(ResNetConfig):
    """The segmentation network: a ResNet, dilated where a stride was taken out, and a DeepLab head.

    The defaults are the ResNet-101 of DeepLabV2 in the layout of its Caffe weights.
    """

    head: Literal["deeplabv2", "deeplabv3plus"] = "deeplabv2"
    """deeplabv2: four dilated convolutions, maximum over the scales 1, 0.75 and 0.5; deeplabv3plus: atrous pyramid and
    decoder"""
    rates: tuple[int, ...] = ()
    """dilations of the head, deeplabv2's at output stride 8, deeplabv3plus's at 16, scaled for others; empty: the
    papers', (6, 12, 18, 24) and (6, 12, 18). Crops should be larger than they reach"""
    head_width: Count = 256
    """deeplabv3plus: channels of pyramid and decoder"""
    blocks: tuple[int, ...] = (3, 4, 23, 3)
    layout: Literal["torchvision", "caffe"] = "caffe"
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric_ceil"
    output_stride: Literal[32, 16, 8] = 8
    channel_order: Literal["rgb", "bgr"] = "bgr"
    mean: tuple[float, float, float] = (104.008, 116.669, 122.675)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class DeepLabTraining:
    """How a segmentation network is trained from masks."""

    steps: Count = 20_000
    batch_size: Count = 10
    accumulate: Count = 2
    """the gradient of a step is the mean over this many parts of its batch, computed one after the other"""
    crop: Count = 321
    """side of the square crop; smaller pictures are padded right and bottom, with the mean colour and the label 255"""
    scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
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
    hold: Count = 10
    """the learning rate changes every so many steps"""
    frozen: tuple[str, ...] = ()
    """parts of the backbone that are not trained: conv1, bn1, layer1 .. layer4"""
    batch_norm: Literal["fixed", "frozen", "train"] = "fixed"
    """of the backbone. fixed: nothing of it is trained; frozen: scale and shift are, with the stored statistics;
    train: batch statistics. The norms of deeplabv3plus's head are new and always train"""
    average: float = 0.0
    """decay a step of the running mean of the parameters, which is then what is validated and used, such as 0.999;
    0: none"""
    validate_every: Annotated[Count, MAY_CHANGE] = 2000
    """steps between validations; there is one after the last step, too"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class DeepLabInference(Batches):
    """How pictures become segmentation masks."""

    scales: Scales = (1.0,)
    """picture scales whose probabilities are averaged"""
    mirror: bool = False
    """average over mirror images, too"""


@dataclass(frozen=True, kw_only=True)
class DeepLabConfig:
    """A segmentation network, trained from masks, and the masks made with it."""

    kind: ClassVar[str] = "segmentation"

    data: Data = field(default_factory=Data)
    model: DeepLabModel = field(default_factory=DeepLabModel)
    training: DeepLabTraining = field(default_factory=DeepLabTraining)
    inference: DeepLabInference = field(default_factory=DeepLabInference)
    seed: Seed = 0
    """of everything random: initialisation, order, crops, dropout"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""
