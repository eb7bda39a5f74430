"""What a trained run makes of pictures: heat maps, overlays and seed masks, or segmentation masks.

    python infer.py --ckpt runs/demo --out heatmaps/
    python infer.py --ckpt runs/demo --out heatmaps_mine/ --images 'my/*.jpg'
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python infer.py --ckpt runs/seg --out masks/

Without --images: the pictures of the run's --data.seeds, scored where there are true masks; heat maps are of their
labels. With --images: any pictures; heat maps are of the classes that are predicted. The same command continues what
was stopped.
"""

import sys
from dataclasses import dataclass, field

import tyro

from lpcam_jax import devices, heatmaps, processes, segmentation_masks
from lpcam_jax.config import Inference, SegmentationConfig, SegmentationInference
from lpcam_jax.data.records import RecordSource
from lpcam_jax.data.sources import pictures_of
from lpcam_jax.locks import in_use
from lpcam_jax.scripts import check_numbers, run_program, value_of_flag
from lpcam_jax.training.run import Run
from lpcam_jax.training.state import trained_state


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """What to map, and where to."""

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
    """one of several processes, each maps its share: see README"""


@dataclass(frozen=True, kw_only=True)
class HeatMapArguments(Arguments):
    """What to map, and where to."""

    inference: Inference = field(default_factory=Inference)


@dataclass(frozen=True, kw_only=True)
class MaskArguments(Arguments):
    """What to segment, and where to."""

    inference: SegmentationInference = field(default_factory=SegmentationInference)


def main() -> None:
    """Compute, write, score, print."""
    arguments = parse(sys.argv[1:])
    if arguments.distributed:
        processes.join()
    devices.remember_compilations()
    mesh = devices.mesh()
    run = Run.open(arguments.ckpt)
    options = {"inference": arguments.inference, "devices": devices.local_mesh()}
    if isinstance(run.config, SegmentationConfig):
        state, source = trained_state(run, devices=mesh), source_of(arguments, run)
        with processes.only_first(in_use(arguments.out, "infer.py", flag="--out")):
            metrics = segmentation_masks.make_masks(run, state, source, arguments.out, **options)
        describe, use = segmentation_masks.describe, "masks/"
    else:
        prototypes = run.load_prototypes()
        state, source = trained_state(run, devices=mesh), source_of(arguments, run)
        with processes.only_first(in_use(arguments.out, "infer.py", flag="--out")):
            metrics = heatmaps.make_heatmaps(run, state, prototypes, source, arguments.out, **options)
        describe, use = heatmaps.describe, "seeds/ and maps/"
    if metrics:
        for text in describe(metrics):
            print(text)
        print(f"{metrics['pictures']} pictures are in {arguments.out}: look at index.html, use {use}.")


def parse(words: list[str]) -> HeatMapArguments | MaskArguments:
    """The flags; which there are, and their defaults, says the run."""
    ckpt = value_of_flag("--ckpt", words)
    config = Run.open(ckpt).config if ckpt else None
    kind = MaskArguments if isinstance(config, SegmentationConfig) else HeatMapArguments
    default = kind(ckpt=tyro.MISSING, out=tyro.MISSING, inference=config.inference if config else Inference())
    arguments = tyro.cli(kind, args=words, description=__doc__, default=default)
    check_numbers("inference", arguments.inference)
    return arguments


def source_of(arguments: Arguments, run: Run) -> RecordSource:
    """The pictures that are meant."""
    where = {"images": arguments.images, "root": arguments.root, "split": arguments.split}
    return pictures_of(run.config, run.class_names, **where, limit=arguments.limit)


if __name__ == "__main__":
    run_program(main)
