"""Config of the affinity network, its training and its inference. The defaults are MCTformer's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig
from ...backbones.wideresnet import WideResNet38Config
from ...config.common import Batches, RunConfig
from ...config.numbers import MAY_CHANGE, Count, Exponent, Jitter, Level, Radius


@dataclass(frozen=True, kw_only=True)
class PSALabels:
    """Training labels from heat maps: what two CRFs agree on, one with a large background, one with a small."""

    method: str = "lpcam"
    """method of the heat maps: cam, lpcam_f, lpcam, taught (LPCAM-T), affinity (LPCAM-A), or the name of another array
    in their files"""
    low: Exponent = 1.0
    """exponent of the background, (1 - max of the maps)^low, in the CRF that says what is a class"""
    high: Exponent = 12.0
    """exponent of the background in the CRF that says what is background; psa's own are 4 and 32"""


@dataclass(frozen=True, kw_only=True)
class PSATraining:
    """How the affinity network is trained."""

    epochs: Count = 5
    least_steps: Count = 1
    """minimum number of steps; a small data set is trained on for more epochs to reach it"""
    batch_size: Count = 8
    crop: Count = 448
    """side of the square crop, a multiple of the grid's stride; smaller pictures are padded with zeros after
    normalisation"""
    jitter: Jitter = (0.3, 0.3, 0.3, 0.1)
    """the most that brightness, contrast, saturation and hue are changed"""
    radius: Radius = 5
    """pairs of positions nearer than this are compared; in units of the grid, 8 pixels on a WideResNet-38"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is the references' "PolyOptimizer", with practically no momentum"""
    learning_rate: float = 0.01
    """learning rate of the backbone; psa's own is 0.1"""
    head_multiplier: float = 10.0
    """factor on the learning rate of the layers behind the backbone"""
    weight_decay: float = 5e-4
    momentum: float = 5e-4
    """sgd only. The reference passes its weight decay here"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    frozen: tuple[str, ...] = ()
    """frozen parts of the backbone, or all; psa's: conv1a, b2, b2_1, b2_2. Batch norm is never trained"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class PSAInference(Batches):
    """How the random walk turns heat maps into pseudo masks."""

    method: str = ""
    """method of the heat maps; empty: the one that the network was trained on"""
    background: Level = 0.39
    """the background's map before the walk, everywhere; best the threshold at which the seeds are best"""
    radius: Radius = 5
    """a step leads to positions nearer than this, in units of the grid"""
    beta: Exponent = 8.0
    """exponent of the affinities; the higher, the harder it is to pass on"""
    steps: Count = 64
    """number of steps; psa's own is 256"""


@dataclass(frozen=True, kw_only=True)
class PSAConfig(RunConfig):
    """The affinity network, trained from heat maps, and the pseudo masks it makes."""

    kind: ClassVar[str] = "psa"

    model: BackboneConfig = field(default_factory=WideResNet38Config)
    labels: PSALabels = field(default_factory=PSALabels)
    training: PSATraining = field(default_factory=PSATraining)
    inference: PSAInference = field(default_factory=PSAInference)
