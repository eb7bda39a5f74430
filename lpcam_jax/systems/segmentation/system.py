"""What systems have in common that are trained on masks and segment whole pictures."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

from ...data.records import RecordSource
from ...training.run import Job, Run
from ..base import InferFlags, Metrics, Preparation, Program, System

C = TypeVar("C")
SEGMENTATION = "segmentation"


class SegmentationSystem(System[C]):
    """A segmentation network, trained on masks; its results are masks, in a `results.masks.MaskResults`."""

    stages: ClassVar = (SEGMENTATION,)
    makes: ClassVar = "masks/"
    takes: ClassVar = "masks"

    @abstractmethod
    def train(self, job: Job, pictures: RecordSource, validation: RecordSource) -> None:
        """Train the network of a run, or resume its training.

        Args:
            job: the run and the mesh.
            pictures: pictures with the masks to train on.
            validation: pictures with true masks, for the validation mIoU; may be empty.
        """

    def prepare(self, config: C, stages: Sequence[str]) -> Preparation:
        from ...data.masks import expect_numbered
        from ...data.sources import masked_source, training_sources

        pictures, validation = training_sources(config, masks=True)
        remedy = "choose some of them, with --data.classes"
        expect_numbered(len(pictures.class_names), "the masks of a segmentation network", remedy)
        pictures = masked_source(pictures, config.data)
        work = {SEGMENTATION: lambda job: self.train(job, pictures, validation)}
        return Preparation(tuple(pictures.class_names), {name: work[name] for name in stages})

    def uses_stored_statistics(self, config: C) -> bool:
        return config.training.batch_norm != "train"

    def inference(self, job: Job, flags: InferFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        from ...training.state import trained_state
        from .masks import make_masks
        from .trained_segmenter import note_unfinished

        state = trained_state(job.run, devices=job.devices)
        note_unfinished(job.run, state)
        return lambda: make_masks(job.run, state, pictures, flags.out, pages=flags.pages)

    def as_function(self, run: Run) -> Any:
        from .trained_segmenter import TrainedSegmenter

        return TrainedSegmenter(run)

    def program(self, run: Run, config: C, size: tuple[int, int]) -> Program:
        from ...machine.devices import mesh
        from ...training.state import trained_state
        from .program import segmentation_program
        from .trained_segmenter import note_unfinished

        state = trained_state(run, devices=mesh())
        note_unfinished(run, state)
        return segmentation_program(run, config, state, size)

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from ...results.masks import describe

        return describe(metrics)

    def results(self, flags: InferFlags) -> str:
        return "masks/"
