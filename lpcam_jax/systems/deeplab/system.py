"""DeepLab as a system of train.py and infer.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import InferFlags, Metrics, Preparation, System
from .config import DeepLabConfig, DeepLabInference

if TYPE_CHECKING:
    from flax import nnx

SEGMENTATION = "segmentation"


@dataclass(frozen=True, kw_only=True)
class DeepLabFlags(InferFlags):
    """Pictures to segment, and output folder."""

    inference: DeepLabInference = field(default_factory=DeepLabInference)


class DeepLab(System[DeepLabConfig]):
    """A segmentation network, trained on masks."""

    config: ClassVar = DeepLabConfig
    flags: ClassVar = DeepLabFlags
    stages: ClassVar = (SEGMENTATION,)
    makes: ClassVar = "masks/"

    def build(self, config: DeepLabConfig, classes: int) -> "nnx.Module":
        from .network import build_deeplab

        return build_deeplab(config.model, classes + 1, seed=config.seed)

    def prepare(self, config: DeepLabConfig, stages: Sequence[str]) -> Preparation:
        from ...data.masks import expect_numbered
        from ...data.sources import masked_source, training_sources
        from .training import train_segmentation

        pictures, validation = training_sources(config)
        remedy = "choose some of them, with --data.classes"
        expect_numbered(len(pictures.class_names), "the masks of a segmentation network", remedy)
        pictures = masked_source(pictures, config.data)
        work = {SEGMENTATION: lambda job: train_segmentation(job, pictures, validation)}
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def average(self, config: DeepLabConfig) -> float:
        return config.training.average

    def uses_stored_statistics(self, config: DeepLabConfig) -> bool:
        return config.training.batch_norm != "train"

    def inference(self, job: Job, flags: DeepLabFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .masks import make_masks

        state = trained_state(job.run, devices=job.devices)
        return lambda: make_masks(job.run, state, pictures, flags.out, pages=flags.pages)

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from ...results.masks import describe

        return describe(metrics)

    def results(self, flags: DeepLabFlags) -> str:
        return "masks/"


system = DeepLab()
