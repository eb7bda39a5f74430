"""The interface of a system to train.py, infer.py and the commands: name, config, network, stages, results.

A system is a folder with a module `system`, listed in the registry (`config.registry`). These modules import nothing
heavy: the methods import the network, its training and its results when they need them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from ..data.records import RecordSource
from ..machine.errors import UserError
from ..refine import Refine
from ..results.shown import Pages
from ..training.run import Job, Run

if TYPE_CHECKING:
    import jax
    from flax import nnx

    from ..backbones.weights.fill import Loaded

C = TypeVar("C")
Metrics = dict[str, Any]
Stage = Callable[[Job], None]


@dataclass(frozen=True, kw_only=True)
class InferFlags:
    """The flags of infer.py that all systems share; each system adds a field `inference`."""

    ckpt: str
    """the --workdir of a run of train.py, or a packed run: its folder, or hf:OWNER/NAME on the Hugging Face Hub"""
    out: str
    """folder for the results; give the same folder again to resume"""
    images: str = ""
    """a folder, a file, or a pattern such as 'my/*.jpg'; empty: the run's own data set"""
    root: str = ""
    """current folder of the run's data set; empty: the one used for training"""
    split: str = ""
    """split of that data set, in the syntax of --data.seeds of train.py; empty: the run's --data.seeds"""
    limit: int | None = None
    """use only the first LIMIT pictures"""
    pages: Pages = "sample"
    """which pictures have overlays and a place in the gallery, index.html: sample, at most 2,000; all; or none, which
    also leaves out prototypes.html"""
    distributed: bool = False
    """run as one of several processes, each with its share of the pictures: see docs/many_devices.md"""


@dataclass(frozen=True, kw_only=True)
class HeatMapFlags(InferFlags):
    """The flags of infer.py of all systems that make heat maps."""

    refine: Refine = "crf"
    """crf: also write pseudo masks, the seeds aligned with the edges of the picture by a dense CRF; par: those of maps
    averaged over pixels that are near and of a similar colour (pixel-adaptive refinement), in less time; none: seeds
    only"""
    saliency: str = ""
    """with crf: pseudo masks follow EDAM's rule, from maps, CRF and saliency: a folder of 8-bit saliency maps, ID.png,
    or a file of U2-Net's weights, such as u2netp.onnx, which makes them, into saliency/ of the output folder"""


class Preparation(NamedTuple):
    """A training run whose data are opened and checked; nothing is written yet.

    Attributes:
        class_names: class names of the data set.
        stages: the function that runs each requested stage, by name.
    """

    class_names: tuple[str, ...]
    stages: Mapping[str, Stage]


class Program(NamedTuple):
    """A function of pictures of one size.

    Attributes:
        function: pictures uint8 (b, H, W, 3), RGB, 0..255 -> arrays by name, the first axis of each is b.
        size: (H, W).
        outputs: what each array is: dtype, shape and range of values.
        class_names: c names.
        run: the name of the run's folder.
        step: the training step of its parameters.
        without: what infer.py makes of the run and the program does not, in words; empty: nothing.
    """

    function: "Callable[[jax.Array], dict[str, jax.Array]]"
    size: tuple[int, int]
    outputs: Mapping[str, str]
    class_names: tuple[str, ...]
    run: str
    step: int
    without: str = ""


class System(ABC, Generic[C]):
    """A method: how it is configured, built, trained and used.

    Attributes:
        kind: its name in config.json, the same as `config.kind`.
        config: a frozen dataclass with data, model, training, inference, seed and limit: the flags of train.py.
        flags: a dataclass with the flags of infer.py.
        stages: names of its training stages, in order.
        makes: output folder in examples of infer.py, such as "heatmaps/".
        takes: what it is trained on: pictures with labels, heat maps (--data.maps), or masks (--data.masks).
        masks: the folder of its masks in the output of infer.py.
        pictures_of_one: pictures of each thing that a batch counts, such as 2 of a pair.
    """

    config: ClassVar[type]
    flags: ClassVar[type[InferFlags]]
    stages: ClassVar[tuple[str, ...]]
    makes: ClassVar[str]
    takes: ClassVar[Literal["labels", "maps", "masks"]] = "labels"
    masks: ClassVar[str] = "masks"
    pictures_of_one: ClassVar[int] = 1

    @property
    def kind(self) -> str:
        """Its name in config.json."""
        return self.config.kind

    @abstractmethod
    def build(self, config: C, classes: int) -> "nnx.Module":
        """Build the network with random parameters; call it only inside `jax.jit` or `nnx.eval_shape`.

        Args:
            config: the system's config.
            classes: c, number of classes without the background.
        """

    @abstractmethod
    def prepare(self, config: C, stages: Sequence[str]) -> Preparation:
        """Open and check the training data.

        Args:
            config: the system's config.
            stages: the requested stages, in order.

        Raises:
            UserError: the data cannot be used.
        """

    @abstractmethod
    def inference(self, job: Job, flags: InferFlags, pictures: RecordSource) -> Callable[[], Metrics | None]:
        """Open everything that inference needs; nothing is written yet.

        Args:
            job: the run, with the settings of `flags.inference`, and the mesh.
            flags: the flags of infer.py.
            pictures: the pictures to process.

        Returns:
            A function that computes the results, writes them into `flags.out` and returns the contents of metrics.json
            (None in every process but the first).

        Raises:
            UserError: there is no checkpoint, or a path in the flags does not exist.
        """

    @abstractmethod
    def describe(self, metrics: Metrics) -> Iterator[str]:
        """Summarize the metrics for the terminal, line by line."""

    @abstractmethod
    def results(self, flags: InferFlags) -> str:
        """The folders in `flags.out` that the next step uses, such as "masks/"."""

    def as_function(self, run: Run) -> Any:
        """Open a finished run as a function of pictures, for `lpcam_jax.load`.

        Args:
            run: the run.

        Returns:
            A function of one picture or several (`data.in_memory.Picture`).

        Raises:
            UserError: the run lacks what is needed of it; or this kind is not loaded, as most are not.
        """
        raise UserError(f"{run.directory} holds a run of kind {self.kind}, which is not loaded; use infer.py.")

    def program(self, run: Run, config: C, size: tuple[int, int]) -> Program:
        """The network of a finished run as one function of pictures, for `lpcam_jax.exports`.

        Args:
            run: the run.
            config: that of the run, at the precision of the program.
            size: (H, W) of the pictures.

        Raises:
            UserError: the run lacks what is needed of it; or this kind is not exported, as most are not.
        """
        raise UserError(f"{run.directory} holds a run of kind {self.kind}, of which no program is exported.")

    def also_learns_from(self, config: C) -> dict[str, Any]:
        """Settings on which training depends, by name, besides data, model, head, labels and training."""
        return {}

    def companions(self, run: Run) -> Sequence[Path]:
        """The files of a finished run that its use needs beside the network, such as prototypes.npz; checked.

        Raises:
            UserError: one is missing or damaged.
        """
        return ()

    def load(self, config: C, network: dict[str, Any]) -> "Loaded":
        """Load the pretrained parameters that `config.model.weights` names: those of the backbone, or of more.

        Args:
            config: the system's config.
            network: the network as a nested dict of arrays, see `backbones.weights.resnet.load_deeplab`.

        Raises:
            UserError: see `BackboneConfig.load`.
        """
        return config.model.load(config.model.weights, network)

    def average(self, config: C) -> float:
        """Decay per step of the running mean of the parameters, which then replaces them in validation and inference;
        0: no running mean."""
        return 0.0

    def uses_stored_statistics(self, config: C) -> bool:
        """Whether the backbone's batch norm is trained with stored statistics (with random weights: a dry run only)."""
        return True

    def next_command(self, config: C, workdir: str) -> str:
        """The command that train.py suggests after a finished run."""
        return f"python infer.py --ckpt {workdir} --out {self.makes}"


class HeatMapSystem(System[C]):
    """A system whose results are heat maps, in a `results.heatmaps.HeatMapFolder`."""

    flags: ClassVar[type[HeatMapFlags]]
    masks: ClassVar[str] = "pseudo_masks"

    def describe(self, metrics: Metrics) -> Iterator[str]:
        from ..results.heatmaps import describe

        return describe(metrics)

    def written_with(self, flags: HeatMapFlags) -> dict[str, Any]:
        """What the flags say of the results besides their maps: the refinement, opened, and the pages.

        Raises:
            UserError: there is no such saliency.
        """
        from ..results.refinement import refinement

        options = {"background": flags.inference.background, "saliency": flags.saliency, "out": flags.out}
        return {"refinement": refinement(flags.refine, **options), "pages": flags.pages}

    def results(self, flags: HeatMapFlags) -> str:
        masks = "seeds/" if flags.refine == "none" else "pseudo_masks/"
        return f"{masks} and maps/" if Path(flags.out, masks).is_dir() else "maps/"
