"""Config of the classifier, its prototypes and its inference. The defaults are LPCAM's for VOC 2012."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ...backbones.config import BackboneConfig, ResNetConfig
from ...config import common
from ...config.common import Batches, RunConfig
from ...config.numbers import MAY_CHANGE, Count, Factor, Limit, OptionalCount, PixelRange, Scales

Teachers = Annotated[tuple[Literal["crf", "affinity"], ...], Limit(bool, "give at least one, crf or affinity")]


@dataclass(frozen=True, kw_only=True)
class LPCAMTraining:
    """How the classifier is trained."""

    epochs: Count = 5
    least_steps: Count = 1
    """minimum number of steps; a small data set is trained on for more epochs to reach it"""
    batch_size: Count = 16
    crop: Count = 512
    """side of the square crop; smaller pictures are padded with zeros after normalisation"""
    long_side: PixelRange = (320, 640)
    """the long side is resized to a uniform random integer from this range before cropping"""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd is the references' "PolyOptimizer", with practically no momentum"""
    learning_rate: float = 0.1
    """learning rate of the backbone"""
    head_multiplier: float = 10.0
    """factor on the learning rate of the head"""
    layer_decay: Factor = 1.0
    """factor on the learning rate of each layer of the backbone, counted from the head: 0.65 to 0.8 is usual where a
    pretrained transformer is trained further"""
    weight_decay: float = 1e-4
    momentum: float = 1e-4
    """sgd only. The reference passes its weight decay here; 0.9 would make the effective learning rate ten times
    higher"""
    power: float = 0.9
    """learning rate = initial * (1 - step / steps) ** power"""
    frozen: tuple[str, ...] = ("stem",)
    """frozen parts of the backbone. stem: its first layer. Others: in a ResNet among conv1, bn1, layer1 .. layer4, in a
    ViT among embedding, blocks1 .. blocks4, in a Swin transformer among embedding, stage1 .. stage4. all: every part.
    Then, with frozen batch norm, only the head is trained, a linear probe: on the features of whole pictures, which are
    computed once, so crop and long_side are not used, and epochs take seconds"""
    batch_norm: Literal["frozen", "train"] = "frozen"
    """frozen: uses the stored statistics and leaves them unchanged; train: uses statistics of the global batch"""
    head_init: Literal["random", "zero"] = "random"
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class Clustering(common.Clustering):
    """How local features become prototypes (paper, section 3.2)."""

    cam_scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image, of the CAM that splits the features"""
    taught: OptionalCount = None
    """beyond the paper, LPCAM-T: number of pictures from whose refined seeds one direction per class is learned; bounds
    the memory. none: no LPCAM-T"""
    teachers: Teachers = ("crf",)
    """with taught: what refines the seeds of each round that directions learn from, crf, or affinity (LPCAM-A, without
    a CRF): first LPCAM's seeds, then those of the round before. crf affinity is two rounds"""


@dataclass(frozen=True, kw_only=True)
class LPCAMInference(Batches):
    """How pictures are mapped, and how seeds are cut from the maps."""

    scales: Scales = (1.0, 0.5, 1.5, 2.0)
    """picture scales, each with its mirror image; the first one is used for predicting classes and for validation"""
    background: float = 0.3
    """seed threshold: pixels where no map is above it are background"""
    probability: float = 0.5
    """pictures without labels: classes with at least this probability are mapped, or else the most probable one"""
    affinity: OptionalCount = None
    """beyond the paper, LPCAM-A: number of steps, such as 5, in which evidence spreads among positions that look alike.
    none: no LPCAM-A"""
    seeds: Literal["last", "cam", "lpcam_f", "lpcam", "taught", "affinity"] = "last"
    """method whose maps become seeds and pseudo masks; last: LPCAM, or what is asked for beyond it"""


@dataclass(frozen=True, kw_only=True)
class LPCAMConfig(RunConfig):
    """A classifier, its prototypes, and the heat maps they make."""

    kind: ClassVar[str] = "classifier"

    model: BackboneConfig = field(default_factory=ResNetConfig)
    training: LPCAMTraining = field(default_factory=LPCAMTraining)
    prototypes: Clustering = field(default_factory=Clustering)
    inference: LPCAMInference = field(default_factory=LPCAMInference)
