"""IRN as a system of train.py and infer.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...training.run import Job
from ..base import InferFlags, Metrics, Preparation, System
from .config import IRNConfig, IRNInference

if TYPE_CHECKING:
    from flax import nnx

LABELS, IRNET = "labels", "irnet"


@dataclass(frozen=True, kw_only=True)
class IRNFlags(InferFlags):
    """Heat maps to refine by the random walk, and output folder."""

    maps: str = ""
    """folder of the heat maps; empty: the maps that IRNet was trained on"""
    inference: IRNInference = field(default_factory=IRNInference)


class IRNSystem(System[IRNConfig]):
    """Sure labels from heat maps, IRNet trained on them, and pseudo masks by the random walk."""

    config: ClassVar = IRNConfig
    flags: ClassVar = IRNFlags
    stages: ClassVar = (LABELS, IRNET)
    makes: ClassVar = "pseudo_masks/"
    takes: ClassVar = "maps"

    def build(self, config: IRNConfig, classes: int) -> "nnx.Module":
        from .network import build_irnet

        return build_irnet(config.model, seed=config.seed)

    def prepare(self, config: IRNConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import training_source
        from ..grids import expect_rounded_up_grid
        from ..sure_labels import expect_few_classes, expect_maps, expect_thresholds, label_pictures
        from .training import train_irn

        expect_maps(config, "IRNet")
        expect_thresholds(config.labels)
        expect_rounded_up_grid(config, "IRNet", or_less=True)
        pictures = training_source(config)
        expect_few_classes(pictures, "IRNet")
        work = {
            LABELS: lambda job: label_pictures(job.run, pictures),
            IRNET: lambda job: train_irn(job, label_pictures(job.run, pictures)),
        }
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def inference(self, job: Job, flags: IRNFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .masks import make_pseudo_masks

        state = trained_state(job.run, devices=job.devices)
        maps = flags.maps or job.run.config.data.maps
        return lambda: make_pseudo_masks(job.run, state, pictures, maps, flags.out, pages=flags.pages)

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from .masks import describe

        return describe(metrics)

    def results(self, flags: IRNFlags) -> str:
        return "masks/"

    def next_command(self, config: IRNConfig, workdir: str) -> str:
        return f"{super().next_command(config, workdir)} --maps {config.data.maps}"


system = IRNSystem()
