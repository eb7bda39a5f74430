"""Config of UperNet, its training and its inference. The defaults are those of UperNet on Swin-S for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig
from ...backbones.swin import SwinConfig
from ...config.common import RunConfig
from ...config.numbers import MAY_CHANGE, Count, Factor, NotNegative, OptionalPixelRange, ScaleRange
from ..segmentation.config import SegmentationInference


@dataclass(frozen=True, kw_only=True)
class UperNetHead:
    """What stands on the backbone."""

    width: Count = 512
    """channels of every convolution but the last"""
    auxiliary_width: Count = 256
    """the same of the auxiliary head, on the last stage but one, which is there for training alone"""


@dataclass(frozen=True, kw_only=True)
class UperNetTraining:
    """How UperNet is trained on masks."""

    steps: Count = 40_000
    batch_size: Count = 16
    accumulate: Count = 1
    """gradient accumulation: each batch is split into this many parts, whose gradients are averaged; batch norm sees
    each part alone"""
    fit: OptionalPixelRange = (512, 2048)
    """short and long side, in pixels: every picture is enlarged or shrunk, in proportion, until it fits both; none:
    pictures keep their size, up to --data.longest"""
    scale_range: ScaleRange = (0.5, 2.0)
    """random factor on that size"""
    crop: Count = 512
    """side of the square crop; smaller pictures are padded right and bottom, with zeros after normalisation and label
    255"""
    largest_class: Factor = 0.75
    """a crop is drawn again, up to ten times, while a class has this share of its labelled pixels; 1: it is not"""
    photometric: bool = True
    """random brightness, contrast, saturation and hue"""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 6e-5
    weight_decay: float = 1e-2
    """norms of the backbone, unless they are batch norms, positions and tokens have none; everything else has, biases
    among it"""
    momentum: float = 0.9
    """sgd only"""
    power: float = 1.0
    """learning rate = initial * (1 - step / steps) ** power"""
    warm_up: NotNegative = 1500
    """steps in which a factor on the learning rate rises from 1e-6 to 1"""
    auxiliary: float = 0.4
    """weight of the auxiliary head's loss"""
    loss_over: Literal["all", "labelled"] = "all"
    """what the sum of the pixels' losses is divided by: the number of all pixels, unlabelled ones and padding included,
    as mmsegmentation does it, or that of the labelled ones"""
    frozen: tuple[str, ...] = ()
    """frozen parts of the backbone, see docs/backbones.md; all: every part"""
    batch_norm: Literal["train", "frozen"] = "train"
    """batch norm of the backbone, if it has any. train: with the statistics of the global batch, which are stored,
    those of frozen parts, too; frozen: scale and shift are trained, with the stored statistics. The head's is always
    trained with those of the batch"""
    validate_every: Annotated[Count, MAY_CHANGE] = 4000
    """steps between validations; the last step is always validated"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class UperNetInference(SegmentationInference):
    """How pictures are segmented."""

    fit: OptionalPixelRange = (512, 2048)


@dataclass(frozen=True, kw_only=True)
class UperNetConfig(RunConfig):
    """UperNet, trained on masks, and the masks it predicts."""

    kind: ClassVar[str] = "upernet"

    model: BackboneConfig = field(default_factory=lambda: SwinConfig(stage_norms=True, drop_path=0.3))
    head: UperNetHead = field(default_factory=UperNetHead)
    training: UperNetTraining = field(default_factory=UperNetTraining)
    inference: UperNetInference = field(default_factory=UperNetInference)
