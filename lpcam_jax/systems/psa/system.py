"""psa as a system of train.py and infer.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...machine.errors import UserError
from ...training.run import Job
from ..base import InferFlags, Metrics, Preparation, System
from .config import PSAConfig, PSAInference

if TYPE_CHECKING:
    from flax import nnx

LABELS, AFFINITY = "labels", "affinity"


@dataclass(frozen=True, kw_only=True)
class PSAFlags(InferFlags):
    """Heat maps to refine by the random walk, and output folder."""

    maps: str = ""
    """folder of the heat maps; empty: the maps that the affinity network was trained on"""
    inference: PSAInference = field(default_factory=PSAInference)


class PSASystem(System[PSAConfig]):
    """Labels that two CRFs agree on, the affinity network trained on them, and pseudo masks by the random walk."""

    config: ClassVar = PSAConfig
    flags: ClassVar = PSAFlags
    stages: ClassVar = (LABELS, AFFINITY)
    makes: ClassVar = "pseudo_masks/"
    takes: ClassVar = "maps"

    def build(self, config: PSAConfig, classes: int) -> "nnx.Module":
        from .network import build_affinity_net

        return build_affinity_net(config.model, seed=config.seed)

    def prepare(self, config: PSAConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import training_source
        from ..grids import expect_rounded_up_grid
        from ..sure_labels import expect_few_classes, expect_maps
        from .labels import score_pictures
        from .training import train_affinity

        expect_maps(config, "the affinity network")
        expect_rounded_up_grid(config, "the affinity network")
        if config.labels.low >= config.labels.high:
            raise UserError(
                f"--labels.low {config.labels.low:g} --labels.high {config.labels.high:g}: the background of the "
                "second CRF must be the smaller one; give a larger --labels.high."
            )
        pictures = training_source(config)
        expect_few_classes(pictures, "the affinity network")
        work = {
            LABELS: lambda job: score_pictures(job.run, pictures),
            AFFINITY: lambda job: train_affinity(job, score_pictures(job.run, pictures)),
        }
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def inference(self, job: Job, flags: PSAFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .masks import make_pseudo_masks

        state = trained_state(job.run, devices=job.devices)
        maps = flags.maps or job.run.config.data.maps
        return lambda: make_pseudo_masks(job.run, state, pictures, maps, flags.out, pages=flags.pages)

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from ...results.masks import describe

        return describe(metrics)

    def results(self, flags: PSAFlags) -> str:
        return "masks/"

    def next_command(self, config: PSAConfig, workdir: str) -> str:
        return f"{super().next_command(config, workdir)} --maps {config.data.maps}"


system = PSASystem()
