"""DeepLab as a system of train.py and infer.py."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import InferFlags
from ..segmentation.system import SegmentationSystem
from .config import DeepLabConfig, DeepLabInference

if TYPE_CHECKING:
    from flax import nnx


@dataclass(frozen=True, kw_only=True)
class DeepLabFlags(InferFlags):
    """Pictures to segment, and output folder."""

    inference: DeepLabInference = field(default_factory=DeepLabInference)


class DeepLabSystem(SegmentationSystem[DeepLabConfig]):
    """A segmentation network, trained on masks."""

    config: ClassVar = DeepLabConfig
    flags: ClassVar = DeepLabFlags

    def build(self, config: DeepLabConfig, classes: int) -> "nnx.Module":
        from .network import build_deeplab

        return build_deeplab(config.model, classes + 1, seed=config.seed)

    def train(self, job: Job, pictures: RecordSource, validation: RecordSource) -> None:
        from .training import train_deeplab

        train_deeplab(job, pictures, validation)

    def average(self, config: DeepLabConfig) -> float:
        return config.training.average


system = DeepLabSystem()
