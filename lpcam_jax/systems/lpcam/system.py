"""LPCAM as a system of train.py and infer.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ...data.records import RecordSource
from ...machine.errors import UserError
from ...training.run import Job, Run
from ..base import HeatMapFlags, HeatMapSystem, Metrics, Preparation, Program
from .config import Clustering, LPCAMConfig, LPCAMInference

if TYPE_CHECKING:
    from flax import nnx

CLASSIFIER, PROTOTYPES = "classifier", "prototypes"


@dataclass(frozen=True, kw_only=True)
class LPCAMFlags(HeatMapFlags):
    """Pictures to map, and output folder."""

    inference: LPCAMInference = field(default_factory=LPCAMInference)


class LPCAMSystem(HeatMapSystem[LPCAMConfig]):
    """A classifier, its prototypes, and heat maps."""

    config: ClassVar = LPCAMConfig
    flags: ClassVar = LPCAMFlags
    stages: ClassVar = (CLASSIFIER, PROTOTYPES)
    makes: ClassVar = "heatmaps/"

    def build(self, config: LPCAMConfig, classes: int) -> "nnx.Module":
        from .network import build_classifier

        return build_classifier(config.model, classes, head_init=config.training.head_init, seed=config.seed)

    def prepare(self, config: LPCAMConfig, stages: Sequence[str]) -> Preparation:
        from ...data.sources import labelled_sources, seed_source, with_labels
        from ..grids import expect_rounded_up_grid
        from .clustering_stage import make_prototypes
        from .training import train_classifier

        if config.prototypes.taught is None and config.prototypes.teachers != Clustering.teachers:
            raise UserError(
                f"--prototypes.teachers {' '.join(config.prototypes.teachers)} is for LPCAM-T; ask for it with "
                "--prototypes.taught, the number of pictures to learn from."
            )
        expect_rounded_up_grid(config, "a heat map")
        seeds, work = with_labels(seed_source(config), config.data.seeds), {}
        if CLASSIFIER in stages:
            pictures, validation = labelled_sources(config, seeds.class_names)
            work[CLASSIFIER] = lambda job: train_classifier(job, pictures, validation)
        if PROTOTYPES in stages:
            work[PROTOTYPES] = lambda job: make_prototypes(job, seeds)
        return Preparation(tuple(seeds.class_names), work)

    def uses_stored_statistics(self, config: LPCAMConfig) -> bool:
        return config.training.batch_norm != "train"

    def inference(self, job: Job, flags: LPCAMFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from ..prototyping.stored_prototypes import load_prototypes
        from .heatmaps import make_heatmaps

        options = self.written_with(flags)
        state = trained_state(job.run, devices=job.devices)
        prototypes = load_prototypes(job.run, state)
        return lambda: make_heatmaps(job.run, state, prototypes, pictures, flags.out, **options)

    def also_learns_from(self, config: LPCAMConfig) -> dict[str, Any]:
        from .linear_probe import is_linear_probe

        return {"first of inference.scales": config.inference.scales[0]} if is_linear_probe(config.training) else {}

    def companions(self, run: Run) -> Sequence[Path]:
        from ..prototyping.stored_prototypes import load_prototypes, prototypes_file

        load_prototypes(run)
        return (prototypes_file(run),)

    def as_function(self, run: Run) -> Any:
        from .trained_model import TrainedModel

        return TrainedModel(run)

    def program(self, run: Run, config: LPCAMConfig, size: tuple[int, int]) -> Program:
        from ...machine.devices import mesh
        from ...training.state import trained_state
        from ..prototyping.stored_prototypes import load_prototypes
        from .program import classifier_program

        state = trained_state(run, devices=mesh())
        return classifier_program(run, config, state, load_prototypes(run, state), size)


system = LPCAMSystem()
