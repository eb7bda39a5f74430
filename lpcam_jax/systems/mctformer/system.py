"""MCTformer as a system of train.py and infer.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from ...data.records import RecordSource
from ...training.run import Job, Run
from ..base import HeatMapFlags, HeatMapSystem, Metrics, Preparation
from .config import MCTformerConfig, MCTformerInference

if TYPE_CHECKING:
    from flax import nnx

MCTFORMER_STAGE, PROTOTYPES = "mctformer", "prototypes"


@dataclass(frozen=True, kw_only=True)
class MCTformerFlags(HeatMapFlags):
    """Pictures to map, and output folder."""

    inference: MCTformerInference = field(default_factory=MCTformerInference)


class MCTformerSystem(HeatMapSystem[MCTformerConfig]):
    """A transformer with class tokens, the prototypes of its patches, and heat maps with and without them."""

    config: ClassVar = MCTformerConfig
    flags: ClassVar = MCTformerFlags
    stages: ClassVar = (MCTFORMER_STAGE, PROTOTYPES)
    makes: ClassVar = "heatmaps_mctformer/"

    def build(self, config: MCTformerConfig, classes: int) -> "nnx.Module":
        from .network import build_mctformer

        return build_mctformer(config.model, classes, seed=config.seed)

    def prepare(self, config: MCTformerConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import labelled_sources, seed_source, with_labels
        from ..prototyping.stage import make_prototypes
        from .clustered import clustered
        from .training import train_mctformer

        seeds, work = with_labels(seed_source(config), config.data.seeds), {}
        if MCTFORMER_STAGE in stages:
            pictures, validation = labelled_sources(config, seeds.class_names)
            work[MCTFORMER_STAGE] = lambda job: train_mctformer(job, pictures, validation)
        if PROTOTYPES in stages:
            has_scores = config.model.version == "v2"  # of patches, which split and select
            work[PROTOTYPES] = lambda job: make_prototypes(job, seeds, clustered) if has_scores else None
        return Preparation(tuple(seeds.class_names), work)

    def inference(self, job: Job, flags: MCTformerFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from ..prototyping.stored_prototypes import load_prototypes
        from .heatmaps import make_mctformer_heatmaps

        options = self.written_with(flags)
        state = trained_state(job.run, devices=job.devices)
        prototypes = load_prototypes(job.run, state) if job.run.config.model.version == "v2" else None
        return lambda: make_mctformer_heatmaps(job.run, state, prototypes, pictures, flags.out, **options)

    def companions(self, run: Run) -> Sequence[Path]:
        from ..prototyping.stored_prototypes import load_prototypes, prototypes_file

        if run.config.model.version != "v2":
            return ()
        load_prototypes(run)
        return (prototypes_file(run),)


system = MCTformerSystem()
