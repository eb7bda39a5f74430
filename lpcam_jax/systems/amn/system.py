"""AMN to train.py and infer.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ...data.records import RecordSource
from ...training.run import Job
from ..base import InferFlags, Metrics, Preparation, System
from .config import AMNConfig, AMNInference

if TYPE_CHECKING:
    from flax import nnx

LABELS, AMN_STAGE = "labels", "amn"


@dataclass(frozen=True, kw_only=True)
class AMNFlags(InferFlags):
    """What to map, from which heat maps, and where to."""

    maps: str = ""
    """a folder of heat maps to start from; empty: the maps that AMN was trained on"""
    refine: Literal["crf", "none"] = "crf"
    """crf: a dense CRF moves the seeds to the edges of the photograph, which makes pseudo masks; none"""
    saliency: str = ""
    """with crf: a folder of 8-bit saliency maps, ID.png; then EDAM's rule makes the masks of maps, CRF and saliency"""
    inference: AMNInference = field(default_factory=AMNInference)


class AMNSystem(System[AMNConfig]):
    """Sure labels of heat maps, AMN, heat maps by it."""

    config: ClassVar = AMNConfig
    flags: ClassVar = AMNFlags
    stages: ClassVar = (LABELS, AMN_STAGE)
    makes: ClassVar = "heatmaps_amn/"

    def build(self, config: AMNConfig, classes: int) -> "nnx.Module":
        from .network import build_amn

        return build_amn(config.model, classes, seed=config.seed)

    def prepare(self, config: AMNConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import training_source, with_labels
        from ..sure_labels import expect_few_classes, expect_maps, label_pictures
        from .training import train_amn

        expect_maps(config, "AMN")
        pictures = training_source(config)
        expect_few_classes(pictures, "AMN")
        if AMN_STAGE in stages:
            pictures = with_labels(pictures, config.data.train)
        work = {
            LABELS: lambda job: label_pictures(job.run, pictures),
            AMN_STAGE: lambda job: train_amn(job, label_pictures(job.run, pictures)),
        }
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def inference(self, job: Job, flags: AMNFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...refine.pictures import refinement
        from ...training.state import trained_state
        from .heatmaps import make_amn_heatmaps

        refined = refinement(flags.refine, background=flags.inference.background, saliency=flags.saliency)
        state, maps = trained_state(job.run, devices=job.devices), flags.maps or job.run.config.data.maps
        return lambda: make_amn_heatmaps(job.run, state, pictures, maps, flags.out, refinement=refined)

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from ...results.heatmaps import describe

        return describe(metrics)

    def results(self, flags: AMNFlags) -> str:
        masks = "seeds/" if flags.refine == "none" else "pseudo_masks/"
        return f"{masks} and maps/" if Path(flags.out, masks).is_dir() else "maps/"

    def next_command(self, config: AMNConfig, workdir: str) -> str:
        return f"{super().next_command(config, workdir)} --maps {config.data.maps}"


system = AMNSystem()
