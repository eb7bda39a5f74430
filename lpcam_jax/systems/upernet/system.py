"""UperNet as a system of train.py and infer.py."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import InferFlags
from ..segmentation.system import SegmentationSystem
from .config import UperNetConfig, UperNetInference

if TYPE_CHECKING:
    from flax import nnx

    from ...backbones.weights.fill import Loaded


@dataclass(frozen=True, kw_only=True)
class UperNetFlags(InferFlags):
    """Pictures to segment, and output folder."""

    inference: UperNetInference = field(default_factory=UperNetInference)


class UperNetSystem(SegmentationSystem[UperNetConfig]):
    """UperNet, trained on masks."""

    config: ClassVar = UperNetConfig
    flags: ClassVar = UperNetFlags

    def build(self, config: UperNetConfig, classes: int) -> "nnx.Module":
        from .network import build_upernet

        return build_upernet(config, classes + 1)

    def load(self, config: UperNetConfig, network: dict[str, Any]) -> "Loaded":
        from .weights import load_upernet

        return load_upernet(config, network)

    def train(self, job: Job, pictures: RecordSource, validation: RecordSource) -> None:
        from .training import train_upernet

        train_upernet(job, pictures, validation)


system = UperNetSystem()
