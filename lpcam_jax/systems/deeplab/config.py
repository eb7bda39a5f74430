"""Config of a segmentation network, its training and its inference. The defaults are DeepLabV2's for VOC 2012."""

from dataclasses import dataclass, field, make_dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

from ...backbones.config import ResNetConfig
from ...config.common import RunConfig
from ...config.numbers import MAY_CHANGE, ChannelDivisors, ChannelMeans, Count, Scales, Share
from ...config.registry import load_backbone_config
from ..segmentation.config import SegmentationInference


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a segmentation network has on its backbone; the config of both is a subclass of both."""

    head: Literal["deeplabv2", "deeplabv3plus", "largefov"] = "deeplabv2"
    """deeplabv2: four dilated convolutions, maximum over the scales 1, 0.75 and 0.5; deeplabv3plus: atrous pyramid and
    decoder; largefov: two dilated convolutions, one after the other, as in MCTformer's network"""
    rates: tuple[int, ...] = ()
    """dilations of the head, at output stride 8 (deeplabv2, largefov) or 16 (deeplabv3plus), rescaled for other
    strides; empty: the papers', (6, 12, 18, 24), (12, 12) and (6, 12, 18). Training crops should be larger than their
    reach"""
    head_width: Count = 256
    """deeplabv3plus: channels of pyramid and decoder; largefov: between the convolutions, 512 in MCTformer's"""

    @classmethod
    def class_for(cls, values: dict[str, Any]) -> type:
        """The dataclass for plain JSON values: a head on the backbone that they name; by default a ResNet."""
        return headed(values.get("backbone", "resnet")) if cls is Head else cls


@cache
def headed(backbone: str) -> type:
    """The config of a segmentation network on this kind of backbone: `headed("vit")(head="largefov", depth=6)`.

    Raises:
        UserError: there is no such backbone.
    """
    if backbone == "resnet":
        return DeepLabModel
    config = load_backbone_config(backbone)
    return make_dataclass(f"Headed{config.__name__}", (), bases=(Head, config), frozen=True, kw_only=True)


@dataclass(frozen=True, kw_only=True)
class DeepLabModel(Head, ResNetConfig):
    """A segmentation network on a ResNet, with dilation in place of removed strides.

    The defaults are the ResNet-101 of DeepLabV2 in the layout of its Caffe weights.
    """

    blocks: tuple[int, ...] = (3, 4, 23, 3)
    layout: Literal["torchvision", "caffe"] = "caffe"
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric_ceil"
    output_stride: Literal[32, 16, 8] = 8
    channel_order: Literal["rgb", "bgr"] = "bgr"
    mean: ChannelMeans = (104.008, 116.669, 122.675)
    std: ChannelDivisors = (1.0, 1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class DeepLabTraining:
    """How a segmentation network is trained on masks."""

    steps: Count = 20_000
    batch_size: Count = 10
    accumulate: Count = 2
    """gradient accumulation: each batch is split into this many parts, whose gradients are averaged"""
    crop: Count = 321
    """side of the square crop; smaller pictures are padded right and bottom, with the mean colour"""
    padding: Literal["ignored", "background"] = "ignored"
    """label of the padding: ignored (255) or background (0)"""
    scales: Scales = (0.5, 0.75, 1.0, 1.25, 1.5)
    """each picture is resized by one of these before cropping"""
    scaling: Literal["each", "batch"] = "each"
    """each: as said; batch: all pictures of a batch by one factor, uniform from the smallest scale to the largest"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 2.5e-4
    """learning rate of the backbone"""
    head_multiplier: float = 10.0
    """factor on the learning rate of the head"""
    bias_multiplier: float = 20.0
    """factor on the learning rate of the biases of the head's convolutions, which have no weight decay"""
    weight_decay: float = 5e-4
    momentum: float = 0.9
    """sgd only"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    hold: Count = 10
    """the learning rate is updated every HOLD steps"""
    frozen: tuple[str, ...] = ()
    """frozen parts of the backbone: stem (its first layer), those that it names, such as layer1, or all"""
    batch_norm: Literal["fixed", "frozen", "train"] = "fixed"
    """batch norm of the backbone. fixed: not trained; frozen: scale and shift are trained, with the stored statistics;
    train: with batch statistics, which are stored, those of frozen parts, too. The norms of deeplabv3plus's head are
    new and always trained with batch statistics"""
    average: Share = 0.0
    """decay per step, such as 0.999, of a running mean of the parameters, which then replaces them in validation and
    inference; 0: no running mean"""
    validate_every: Annotated[Count, MAY_CHANGE] = 2000
    """steps between validations; the last step is always validated"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class DeepLabInference(SegmentationInference):
    """How pictures are segmented."""


@dataclass(frozen=True, kw_only=True)
class DeepLabConfig(RunConfig):
    """A segmentation network, trained on masks, and the masks it predicts."""

    kind: ClassVar[str] = "segmentation"

    model: Head = field(default_factory=DeepLabModel)
    training: DeepLabTraining = field(default_factory=DeepLabTraining)
    inference: DeepLabInference = field(default_factory=DeepLabInference)
