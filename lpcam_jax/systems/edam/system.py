"""EDAM as a system of train.py and infer.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import HeatMapFlags, HeatMapSystem, Metrics, Preparation
from .config import EDAMConfig, EDAMInference

if TYPE_CHECKING:
    from flax import nnx

    from ...backbones.weights.fill import Loaded

EDAM_STAGE = "edam"


@dataclass(frozen=True, kw_only=True)
class EDAMFlags(HeatMapFlags):
    """Pictures to map, and output folder."""

    inference: EDAMInference = field(default_factory=EDAMInference)


class EDAMSystem(HeatMapSystem[EDAMConfig]):
    """EDAM, trained on pairs of pictures that share a class, and its heat maps."""

    config: ClassVar = EDAMConfig
    flags: ClassVar = EDAMFlags
    stages: ClassVar = (EDAM_STAGE,)
    makes: ClassVar = "heatmaps_edam/"
    pictures_of_one: ClassVar = 2

    def build(self, config: EDAMConfig, classes: int) -> "nnx.Module":
        from .network import build_edam

        return build_edam(config.model, classes, width=config.head.width, seed=config.seed)

    def prepare(self, config: EDAMConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import labelled_sources
        from ...training.state import network_of
        from .training import edam_optimizer, train_edam

        pictures, validation = labelled_sources(config)
        # The backbone and its parts are checked here, before anything is written.
        edam_optimizer(config.training, network_of(config, len(pictures.class_names)), steps=1)
        work = {EDAM_STAGE: lambda job: train_edam(job, pictures, validation)}
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def uses_stored_statistics(self, config: EDAMConfig) -> bool:
        return config.training.batch_norm != "train"

    def load(self, config: EDAMConfig, network: dict[str, Any]) -> "Loaded":
        from .weights import load_edam

        return load_edam(config, network)

    def inference(self, job: Job, flags: EDAMFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .heatmaps import make_edam_heatmaps

        options = self.written_with(flags)
        state = trained_state(job.run, devices=job.devices)
        return lambda: make_edam_heatmaps(job.run, state, pictures, flags.out, **options)


system = EDAMSystem()
