"""Config of AMN, its training and its inference. The defaults are AMN's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from ...backbones.config import ResNetConfig
from ...config.common import Batches, RunConfig, SureLabels
from ...config.numbers import MAY_CHANGE, Count, ScaleRange, Scales, Share


@dataclass(frozen=True, kw_only=True)
class AMNModel(ResNetConfig):
    """The activation manipulation network: ResNet features, weighted by the labels, and four dilated convolutions."""

    rates: tuple[int, ...] = ()
    """dilations of the convolutions at output stride 16, rescaled for other strides; empty: the paper's, (6, 12, 18,
    24). Training crops should be larger than their reach"""


@dataclass(frozen=True, kw_only=True)
class AMNTraining:
    """How AMN is trained: Adam at a constant learning rate, with L2 decay added to the gradient."""

    epochs: Count = 5
    least_steps: Count = 1
    """minimum number of steps; a small data set is trained on for more epochs to reach it"""
    batch_size: Count = 16
    crop: Count = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    scale_range: ScaleRange = (0.5, 1.5)
    """each picture is resized by a uniform factor from this range before cropping"""
    smoothing: Share = 0.4
    """label smoothing: this share of the target is spread over the classes other than the pixel's label"""
    learning_rate: float = 5e-6
    """learning rate of the backbone"""
    head_multiplier: float = 20.0
    """factor on the learning rate of label encoder and convolutions"""
    weight_decay: float = 1e-4
    frozen: tuple[str, ...] = ("stem",)
    """frozen parts of the backbone: stem (its first layer), those that it names, such as layer1, or all. Batch norm
    uses stored statistics"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class AMNInference(Batches):
    """How AMN maps pictures, and how seeds are cut from the maps."""

    method: str = ""
    """method of the input heat maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another
    array in their files; empty: the one used for training. AMN's maps are not stretched where the input maps are
    certain background"""
    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, over which logits are averaged"""
    background: float = 0.25
    """seed threshold: pixels where no map is above it are background"""


@dataclass(frozen=True, kw_only=True)
class AMNConfig(RunConfig):
    """AMN: a network trained from heat maps, and the improved heat maps it makes."""

    kind: ClassVar[str] = "amn"

    model: AMNModel = field(default_factory=AMNModel)
    labels: SureLabels = field(default_factory=SureLabels)
    training: AMNTraining = field(default_factory=AMNTraining)
    inference: AMNInference = field(default_factory=AMNInference)
