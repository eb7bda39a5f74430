"""IRNet, trained from heat maps, and the pseudo masks made with it. The defaults are IRN's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig, ResNetConfig
from ...config.common import Batches, Data, SureLabels
from ...config.numbers import MAY_CHANGE, Count, ScaleRange, Seed


@dataclass(frozen=True, kw_only=True)
class IRNTraining:
    """How IRNet is trained; its backbone stays as it is."""

    epochs: Count = 3
    least_steps: Count = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: Count = 32
    crop: Count = 512
    """side of the square crop, a multiple of 4; smaller pictures are padded with zeros after normalisation"""
    scale_range: ScaleRange = (0.5, 1.5)
    """each picture is resized by a number between these before cropping"""
    radius: Count = 10
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
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class IRNInference(Batches):
    """How heat maps become pseudo masks: by the random walk."""

    method: str = ""
    """which method's maps: cam, lpcam_f, lpcam, taught (LPCAM-T), or the name of any other array in their files; empty:
    those that IRNet was trained on, or else the last in each file: lpcam or, where a run was taught, taught"""
    background: float | None = None
    """where no map is above it there is background; none: 0.35"""
    radius: Count = 5
    """random walk: how far a step reaches; in fours of pixels"""
    power: float = 1.0
    """random walk: power of the maps before it; with AMN's, its authors take 1.3"""
    beta: float = 10.0
    """random walk: power of the affinities; the higher, the harder edges hold"""
    steps: Count = 256
    """random walk: how many steps are taken"""


@dataclass(frozen=True, kw_only=True)
class IRNConfig:
    """IRNet, trained from heat maps, and the pseudo masks made with it."""

    kind: ClassVar[str] = "irn"

    data: Data = field(default_factory=Data)
    model: BackboneConfig = field(default_factory=ResNetConfig)
    labels: SureLabels = field(default_factory=SureLabels)
    training: IRNTraining = field(default_factory=IRNTraining)
    inference: IRNInference = field(default_factory=IRNInference)
    seed: Seed = 0
    """of everything random: initialisation, order, crops"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""
