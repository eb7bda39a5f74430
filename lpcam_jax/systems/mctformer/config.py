"""Config of MCTformer, its training, its prototypes and its inference. The defaults are MCTformer V2's for VOC 2012."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from ...backbones.config import ViTConfig
from ...config.common import Batches, Clustering, RunConfig
from ...config.numbers import MAY_CHANGE, Count, ScaleRange, Scales, Share

if TYPE_CHECKING:
    from ...backbones.weights.fill import Loaded


@dataclass(frozen=True, kw_only=True)
class MCTformerModel(ViTConfig):
    """The vision transformer. Its tokens are one for each class, and no norm stands after its blocks, whatever the
    flags say."""

    version: Literal["v2", "v1"] = "v2"
    """v2: the patches are classified, too, by a 3x3 convolution; v1: only the class tokens"""
    position_resize: Literal["antialiased", "bicubic", "offset"] = "offset"
    final_norm: bool = False

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load an MCTformer, or another vision transformer whose class token all classes then start with."""
        from .weights import load_mctformer

        return load_mctformer(path, network, self)


@dataclass(frozen=True, kw_only=True)
class MCTformerTraining:
    """How MCTformer is trained: AdamW, at a rate that changes from epoch to epoch, on crops as timm makes them."""

    epochs: Count = 60
    least_steps: Count = 1
    """minimum number of steps; a small data set is trained on for more epochs to reach it"""
    batch_size: Count = 64
    crop: Count = 224
    """side of the square that a part of the picture, of any shape, is resized to"""
    area: ScaleRange = (0.08, 1.0)
    """this part's share of the picture"""
    randaugment: bool = True
    """two random changes of colour or shape, as timm's rand-m9-mstd0.5-inc1"""
    erase: Share = 0.25
    """this share of the pictures loses a rectangle to noise"""
    drop_path: Share = 0.1
    """stochastic depth: share of the pictures that skip a branch of the last block; none skips the first, linear
    between"""
    learning_rate: float = 5e-4
    """highest learning rate for a batch of 512; it is scaled with the batch size"""
    warm_up: Count = 5
    """epochs in which the learning rate rises"""
    warm_up_rate: float = 1e-6
    """learning rate of the first two epochs, not scaled"""
    least_rate: float = 1e-5
    """learning rate that the cosine ends at, not scaled"""
    weight_decay: float = 0.05
    """of kernels; norms, biases, tokens and positions have none"""
    checkpoint_every: Annotated[Count, MAY_CHANGE] = 500
    """steps between checkpoints; the last step is always kept"""


@dataclass(frozen=True, kw_only=True)
class MCTformerInference(Batches):
    """How MCTformer maps pictures, and how seeds are cut from the maps."""

    scales: Scales = (1.0,)
    """picture scales, each with its mirror image; the first one is used for predicting classes and for validation"""
    blocks: Count = 3
    """number of last blocks whose attention of the class tokens is summed"""
    lpcam: Literal["patches", "alone"] = "patches"
    """patches: LPCAM takes the place of PatchCAM, and is fused with the attention like it; alone: it takes the place of
    the fused map"""
    background: float = 0.39
    """seed threshold: pixels where no map is above it are background"""
    probability: float = 0.5
    """pictures without labels: classes with at least this probability are mapped, or else the most probable one"""


@dataclass(frozen=True, kw_only=True)
class MCTformerConfig(RunConfig):
    """MCTformer, the prototypes of its patches, and the heat maps they make."""

    kind: ClassVar[str] = "mctformer"

    model: MCTformerModel = field(default_factory=MCTformerModel)
    training: MCTformerTraining = field(default_factory=MCTformerTraining)
    prototypes: Clustering = field(default_factory=Clustering)
    inference: MCTformerInference = field(default_factory=MCTformerInference)
