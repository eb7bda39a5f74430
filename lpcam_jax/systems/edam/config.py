"""Config of EDAM, its training and its inference. The defaults are EDAM's for VOC 2012."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig
from ...backbones.wideresnet import WideResNet38Config
from ...config.common import Batches, RunConfig
from ...config.numbers import MAY_CHANGE, Count, Jitter, Limit, NotNegative, PixelRange, Scales

HEADS = 2
"""Of the attention."""


@dataclass(frozen=True, kw_only=True)
class EDAMHead:
    """The collaborative attention, which is there for training and for the classes of pictures without labels."""

    width: Annotated[int, Limit(lambda value: value >= 2 and value % HEADS == 0, "give an even number, at least 2")] = (
        128
    )
    """channels of a token"""


@dataclass(frozen=True, kw_only=True)
class EDAMTraining:
    """How EDAM is trained, on pairs of pictures that share a class."""

    epochs: Count = 25
    """passes; in each, every picture is paired with another one"""
    least_steps: Count = 1
    """minimum number of steps; a small data set is paired more often to reach it"""
    batch_size: Count = 4
    """pairs of pictures"""
    crop: Count = 368
    """side of the square crop; smaller pictures are padded with zeros after normalisation. Pictures without labels are
    brought to this size, to see which classes are in them"""
    long_side: PixelRange = (256, 512)
    """the long side is resized to a uniform random integer from this range before cropping"""
    jitter: Jitter = (0.3, 0.3, 0.3, 0.1)
    """the most that brightness, contrast, saturation and hue are changed"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 1e-3
    """highest learning rate of the backbone and of the attention"""
    head_multiplier: float = 10.0
    """factor on the learning rate of the layers from features to maps, to tokens, and from tokens to logits"""
    weight_decay: float = 5e-4
    momentum: float = 0.9
    """sgd only"""
    power: float = 0.9
    """after the warm-up, learning rate = highest * (1 - step / steps) ** power, steps counted from there"""
    warm_up: NotNegative = 2000
    """steps in which the learning rate rises from a tenth"""
    frozen: tuple[str, ...] = ("stem",)
    """frozen parts of the backbone, or all; EDAM's: conv1a, b2, b2_1, b2_2"""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """of the backbone. frozen: uses the stored statistics, and keeps scale and shift, too; train: uses statistics of
    the global batch"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class EDAMInference(Batches):
    """How EDAM maps pictures, and how seeds are cut from the maps."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image"""
    background: float = 0.5
    """seed threshold: pixels where no map is above it are background; the authors try 0.40 to 0.58"""
    probability: float = 0.5
    """pictures without labels: classes with at least this probability are mapped, or else the most probable one"""


@dataclass(frozen=True, kw_only=True)
class EDAMConfig(RunConfig):
    """EDAM, and the heat maps it makes."""

    kind: ClassVar[str] = "edam"

    model: BackboneConfig = field(default_factory=partial(WideResNet38Config, final_relu=False))
    head: EDAMHead = field(default_factory=EDAMHead)
    training: EDAMTraining = field(default_factory=EDAMTraining)
    inference: EDAMInference = field(default_factory=EDAMInference)
