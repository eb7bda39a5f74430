"""AMN as a system of train.py and infer.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import HeatMapFlags, HeatMapSystem, Metrics, Preparation
from .config import AMNConfig, AMNInference

if TYPE_CHECKING:
    from flax import nnx

LABELS, AMN_STAGE = "labels", "amn"


@dataclass(frozen=True, kw_only=True)
class AMNFlags(HeatMapFlags):
    """Pictures to map, input heat maps, and output folder."""

    maps: str = ""
    """folder of the input heat maps; empty: the maps that AMN was trained on"""
    inference: AMNInference = field(default_factory=AMNInference)


class AMNSystem(HeatMapSystem[AMNConfig]):
    """Sure labels from heat maps, AMN trained on them, and AMN's heat maps."""

    config: ClassVar = AMNConfig
    flags: ClassVar = AMNFlags
    stages: ClassVar = (LABELS, AMN_STAGE)
    makes: ClassVar = "heatmaps_amn/"
    takes: ClassVar = "maps"

    def build(self, config: AMNConfig, classes: int) -> "nnx.Module":
        from .network import build_amn

        return build_amn(config.model, classes, seed=config.seed)

    def prepare(self, config: AMNConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import training_source, with_labels
        from ...training.state import network_of
        from ..sure_labels import expect_few_classes, expect_maps, expect_thresholds, label_pictures
        from .training import amn_optimizer, train_amn

        expect_maps(config, "AMN")
        expect_thresholds(config.labels)
        pictures = training_source(config)
        expect_few_classes(pictures, "AMN")
        if AMN_STAGE in stages:
            pictures = with_labels(pictures, config.data.train)
            # Its parts are checked here, before all labels are made.
            amn_optimizer(config.training, network_of(config, len(pictures.class_names)))
        work = {
            LABELS: lambda job: label_pictures(job.run, pictures),
            AMN_STAGE: lambda job: train_amn(job, label_pictures(job.run, pictures)),
        }
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def inference(self, job: Job, flags: AMNFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .heatmaps import make_amn_heatmaps

        options = self.written_with(flags)
        state, maps = trained_state(job.run, devices=job.devices), flags.maps or job.run.config.data.maps
        return lambda: make_amn_heatmaps(job.run, state, pictures, maps, flags.out, **options)

    def next_command(self, config: AMNConfig, workdir: str) -> str:
        return f"{super().next_command(config, workdir)} --maps {config.data.maps}"


system = AMNSystem()
