"""What a system is to train.py, infer.py and the commands: a name, a config, a network, stages, and results.

A system is a folder with a module `system`, which the registry names (`config.registry`). These modules import nothing
heavy: a network, its training and its results are imported by the methods that need them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from ..data.records import RecordSource
from ..training.run import Job

if TYPE_CHECKING:
    from flax import nnx

C = TypeVar("C")
Metrics = dict[str, Any]
Stage = Callable[[Job], None]


@dataclass(frozen=True, kw_only=True)
class InferFlags:
    """The flags of infer.py that every system has; a system's own have a field `inference` as well."""

    ckpt: str
    """the --workdir of a run of train.py"""
    out: str
    """folder for the results; the same folder continues them"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the run's own data set"""
    root: str = ""
    """where the run's data set is now; empty: where it was for training"""
    split: str = ""
    """which part of it, as --data.seeds of train.py; empty: that one"""
    limit: int | None = None
    """only the first pictures"""
    distributed: bool = False
    """one of several processes, each with its share of the pictures: see docs/many_devices.md"""


class Preparation(NamedTuple):
    """A training whose data are open and checked; nothing is written yet.

    Attributes:
        class_names: of the data set.
        stages: of each stage that was asked for, what does it.
    """

    class_names: tuple[str, ...]
    stages: Mapping[str, Stage]


class System(ABC, Generic[C]):
    """A method: how it is described, built, trained and used.

    Attributes:
        kind: what config.json calls it, as `config.kind`.
        config: a frozen dataclass with data, model, training, inference, seed and limit: the flags of train.py.
        flags: those of infer.py.
        stages: names of the stages of its training, in order.
        makes: the folder that examples of infer.py write, such as "heatmaps/".
    """

    config: ClassVar[type]
    flags: ClassVar[type[InferFlags]]
    stages: ClassVar[tuple[str, ...]]
    makes: ClassVar[str]

    @property
    def kind(self) -> str:
        """What config.json calls it."""
        return self.config.kind

    @abstractmethod
    def build(self, config: C, classes: int) -> "nnx.Module":
        """The network, randomly initialized; called inside `jax.jit` or `nnx.eval_shape` only.

        Args:
            config: of the system.
            classes: c, without a background.
        """

    @abstractmethod
    def prepare(self, config: C, stages: Sequence[str]) -> Preparation:
        """Open and check the data of a training.

        Args:
            config: of the system.
            stages: those that are wanted, in order.

        Raises:
            UserError: the data cannot be used.
        """

    @abstractmethod
    def inference(self, job: Job, flags: InferFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        """Open what is needed to make the results of pictures; nothing is written yet.

        Args:
            job: the run, with the settings of `flags.inference`, and the mesh.
            flags: of infer.py.
            pictures: that are meant.

        Returns:
            What makes them, writes them into `flags.out` and returns what metrics.json says; None in all processes but
            the first.

        Raises:
            UserError: there is no checkpoint, or something that is named is not there.
        """

    @abstractmethod
    def describe(self, metrics: Metrics) -> Iterator[str]:
        """What a person wants to read of the metrics, line by line."""

    @abstractmethod
    def results(self, flags: InferFlags) -> str:
        """The folders in `flags.out` to use next, such as "masks/"."""

    def average(self, config: C) -> float:
        """Decay a step of the running mean of the parameters, which is then what is validated and used; 0: none."""
        return 0.0

    def uses_stored_statistics(self, config: C) -> bool:
        """Whether the backbone is trained with stored statistics, which of a random one make a dry run only."""
        return True

    def next_command(self, config: C, workdir: str) -> str:
        """What train.py tells to do with a finished run."""
        return f"python infer.py --ckpt {workdir} --out {self.makes}"
