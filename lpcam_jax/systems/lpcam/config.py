"""A classifier, its prototypes, and the heat maps made with them. The defaults are LPCAM's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig, ResNetConfig
from ...config.common import Batches, Data
from ...config.numbers import MAY_CHANGE, Count, OptionalCount, PixelRange, Scales, Seed


@dataclass(frozen=True, kw_only=True)
class LPCAMTraining:
    """How the classifier is trained."""

    epochs: Count = 5
    least_steps: Count = 1
    """of a small data set there are more epochs, until there are so many steps"""
    batch_size: Count = 16
    crop: Count = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    long_side: PixelRange = (320, 640)
    """the long side is resized to a uniform integer of this range before cropping"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is the family's "PolyOptimizer": no momentum worth the name"""
    learning_rate: float = 0.1
    """of the backbone"""
    head_multiplier: float = 10.0
    """the head learns this many times faster"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay in this place; 0.9 would be ten times too hot"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    frozen: tuple[str, ...] = ("conv1", "bn1")
    """parts of the backbone that are not trained; of a ResNet: conv1, bn1, layer1 .. layer4"""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """frozen: the stored statistics are used and kept; train: batch statistics over the global batch"""
    head_init: Literal["random", "zero"] = "random"
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class Clustering:
    """How local features become prototypes (paper, section 3.2)."""

    cam_scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, of the CAM that splits the features"""
    threshold: float = 0.1
    """tau: features where the CAM of a class is above belong to the class, below to its context"""
    clusters: Count = 12
    """K, for the class and for the context each"""
    update: Literal["spherical", "mean"] = "spherical"
    """centre of a cluster: unit mean of unit features, or the reference's raw mean"""
    restarts: Count = 1
    """k-means++ starts; the best objective is kept"""
    pictures: OptionalCount = None
    """pictures drawn a class, with replacement; none: all that have the class"""
    sample: Count = 8192
    """features kept a class and set, drawn uniformly: bounds the memory"""
    mu_f: float = 0.9
    """a class prototype's score is above this"""
    context: tuple[float, float] = (0.05, 0.9)
    """a context prototype's score is between these"""
    taught: OptionalCount = None
    """beyond the paper, LPCAM-T: pictures from whose refined seeds one direction a class is taught; bounds the memory.
    None: the prototypes alone"""


@dataclass(frozen=True, kw_only=True)
class LPCAMInference(Batches):
    """How pictures become maps and maps become seeds."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image; at the first one classes are predicted and validated"""
    background: float = 0.3
    """seed threshold: where no map is above it there is background"""
    probability: float = 0.5
    """pictures without labels: classes at least this probable are mapped; the best one always is"""


@dataclass(frozen=True, kw_only=True)
class LPCAMConfig:
    """A classifier, its prototypes, and the heat maps made with them."""

    kind: ClassVar[str] = "classifier"

    data: Data = field(default_factory=Data)
    model: BackboneConfig = field(default_factory=ResNetConfig)
    training: LPCAMTraining = field(default_factory=LPCAMTraining)
    prototypes: Clustering = field(default_factory=Clustering)
    inference: LPCAMInference = field(default_factory=LPCAMInference)
    seed: Seed = 0
    """of everything random: initialisation, order, crops, feature sample, clustering"""
    limit: int | None = None
    """use only the first pictures, for a dry run"""
