"""The classifier's prototype stage (`prototyping.stage`), and the directions taught by the CRF, if requested."""

from ...data.records import RecordSource
from ...machine.devices import local_mesh
from ...prototypes import Prototypes
from ...training.checkpoints import TrainState
from ...training.run import Job
from ..prototyping import stage
from .feature_sampling import clustered
from .teaching_stage import teach_directions


def make_prototypes(job: Job, source: RecordSource) -> None:
    """`prototyping.stage.make_prototypes` of the classifier, and LPCAM-T's directions; arguments as there."""

    def taught(state: TrainState, prototypes: Prototypes) -> Prototypes:
        if job.run.config.prototypes.taught is None:
            return prototypes
        return prototypes._replace(taught=teach_directions(job.run, state, prototypes, source, devices=local_mesh()))

    stage.make_prototypes(job, source, clustered, finish=taught)
