"""Config of IRNet, its training and its inference. The defaults are IRN's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig, ResNetConfig
from ...config.common import Batches, RunConfig, SureLabels
from ...config.numbers import MAY_CHANGE, Count, Radius, ScaleRange


@dataclass(frozen=True, kw_only=True)
class IRNTraining:
    """How IRNet is trained; its backbone is frozen."""

    epochs: Count = 3
    least_steps: Count = 1
    """minimum number of steps; a small data set is trained on for more epochs to reach it"""
    batch_size: Count = 32
    crop: Count = 512
    """side of the square crop, a multiple of 4; smaller pictures are padded with zeros after normalisation"""
    scale_range: ScaleRange = (0.5, 1.5)
    """each picture is resized by a uniform factor from this range before cropping"""
    radius: Radius = 10
    """pairs of positions closer than this are compared; in units of 4 pixels"""
    displacement: bool = True
    """also train the displacement branch. Only IRN's instance masks need it; it shares no trained parameter with the
    edge branch, so semantic masks are the same without it"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.1
    """learning rate of the edge branch"""
    displacement_multiplier: float = 10.0
    """factor on the learning rate of the displacement branch"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay here; 0.9 would make the effective learning rate ten times
    higher"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class IRNInference(Batches):
    """How the random walk turns heat maps into pseudo masks."""

    method: str = ""
    """method of the heat maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another array
    in their files; empty: the one IRNet was trained on, or else the last in each file"""
    background: float | None = None
    """pixels where no map is above this are background; none: 0.35"""
    radius: Radius = 5
    """random walk: a step leads to positions nearer than this, in units of 4 pixels"""
    power: float = 1.0
    """random walk: exponent applied to the maps beforehand; AMN's authors use 1.3 for its maps"""
    beta: float = 10.0
    """random walk: exponent of the affinities; the higher, the harder it is to cross an edge"""
    steps: Count = 256
    """random walk: number of steps"""


@dataclass(frozen=True, kw_only=True)
class IRNConfig(RunConfig):
    """IRNet, trained from heat maps, and the pseudo masks it makes."""

    kind: ClassVar[str] = "irn"

    model: BackboneConfig = field(default_factory=ResNetConfig)
    labels: SureLabels = field(default_factory=SureLabels)
    training: IRNTraining = field(default_factory=IRNTraining)
    inference: IRNInference = field(default_factory=IRNInference)
