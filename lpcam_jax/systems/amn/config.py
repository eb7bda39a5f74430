"""AMN, trained from heat maps, and the better heat maps made with it. The defaults are AMN's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from ...backbones.config import ResNetConfig
from ...config.common import Batches, Data, SureLabels
from ...config.numbers import MAY_CHANGE, Count, ScaleRange, Scales, Seed, Share


@dataclass(frozen=True, kw_only=True)
class AMNModel(ResNetConfig):
    """The activation manipulation network: a ResNet, weighted by the labels, and four dilated convolutions."""

    rates: tuple[int, ...] = ()
    """dilations of the convolutions at output stride 16, scaled for others; empty: the paper's, (6, 12, 18, 24). Crops
    should be larger than they reach"""


@dataclass(frozen=True, kw_only=True)
class AMNTraining:
    """How AMN is trained: by Adam at a constant rate, with the decay added to the gradient."""

    epochs: Count = 5
    least_steps: Count = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: Count = 16
    crop: Count = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    scale_range: ScaleRange = (0.5, 1.5)
    """each picture is resized by a number between these before cropping"""
    smoothing: Share = 0.4
    """of the target: so much is shared by the classes that are not the pixel's label"""
    learning_rate: float = 5e-6
    """of the backbone"""
    head_multiplier: float = 20.0
    """label encoder and convolutions learn this many times faster"""
    weight_decay: float = 1e-4
    frozen: tuple[str, ...] = ("conv1", "bn1")
    """parts of the backbone that are not trained: conv1, bn1, layer1 .. layer4. Batch norm uses stored statistics"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class AMNInference(Batches):
    """How pictures become AMN's maps and maps become seeds."""

    method: str = ""
    """which method's maps AMN starts from: cam, lpcam_f, lpcam, taught (LPCAM-T), or another array of their
    files; empty: those that it was trained on. What is background for sure in them is not stretched"""
    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, whose logits are averaged"""
    background: float = 0.25
    """seed threshold: where no map is above it there is background"""


@dataclass(frozen=True, kw_only=True)
class AMNConfig:
    """AMN, trained from heat maps, and the better heat maps made with it."""

    kind: ClassVar[str] = "amn"

    data: Data = field(default_factory=Data)
    model: AMNModel = field(default_factory=AMNModel)
    labels: SureLabels = field(default_factory=SureLabels)
    training: AMNTraining = field(default_factory=AMNTraining)
    inference: AMNInference = field(default_factory=AMNInference)
    seed: Seed = 0
    """of everything random: initialisation, order, crops, dropout"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""
