"""What a trained run makes of pictures: heat maps, seeds and pseudo masks, or segmentation masks.

    python infer.py --ckpt runs/demo --out heatmaps/
    python infer.py --ckpt runs/demo --out heatmaps_mine/ --images 'my/*.jpg'
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python infer.py --ckpt runs/amn --maps heatmaps_aug/ --out heatmaps_amn/ --split train_aug
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks/ --split train_aug
    python infer.py --ckpt runs/seg --out masks/

Without --images: the pictures of the run's --data.seeds, scored where there are true masks; heat maps are of their
labels. With --images: any pictures; heat maps are of the classes that are predicted. With --maps: pseudo masks, from
heat maps that are there already; of a run of AMN, better heat maps. The same command continues what was stopped.
"""

import sys
from dataclasses import dataclass, field
from typing import Literal

import tyro

from lpcam_jax import (
    amn_heatmaps,
    devices,
    heatmap_results,
    heatmaps,
    mask_results,
    processes,
    pseudo_masks,
    segmentation_masks,
)
from lpcam_jax.config import (
    AMNConfig,
    AMNInference,
    Inference,
    IRNConfig,
    Refinement,
    SegmentationConfig,
    SegmentationInference,
)
from lpcam_jax.data.records import RecordSource
from lpcam_jax.data.sources import pictures_of
from lpcam_jax.errors import UserError
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
class RefinementArguments(Arguments):
    """How heat maps become pseudo masks."""

    maps: str = ""
    """a folder of heat maps: its pseudo masks are made, no heat maps; of AMN: the maps it starts from; empty, of IRNet
    and AMN: the maps it was trained on"""
    refine: Literal["crf", "irn", "none"] = "crf"
    """crf: a dense CRF moves the seeds to the edges of the photograph; irn: the random walk of a run of IRNet; none"""
    saliency: str = ""
    """with crf: a folder of 8-bit saliency maps, ID.png; then EDAM's rule makes the masks of maps, CRF and saliency"""


@dataclass(frozen=True, kw_only=True)
class HeatMapArguments(RefinementArguments):
    """What to map, and where to."""

    inference: Inference = field(default_factory=Inference)


@dataclass(frozen=True, kw_only=True)
class AMNArguments(RefinementArguments):
    """What to map, from which heat maps, and where to."""

    inference: AMNInference = field(default_factory=AMNInference)


@dataclass(frozen=True, kw_only=True)
class PseudoMaskArguments(RefinementArguments):
    """Which heat maps to refine, how, and where to."""

    inference: Refinement = field(default_factory=Refinement)


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
    if not isinstance(arguments, MaskArguments):
        options |= {"refine": arguments.refine, "saliency": arguments.saliency}
        check_refinement(arguments, run)
    if isinstance(arguments, HeatMapArguments):
        prototypes = run.load_prototypes()
    needs_network = not isinstance(arguments, PseudoMaskArguments) or arguments.refine == "irn"
    state = trained_state(run, devices=mesh) if needs_network else None
    source = source_of(arguments, run)
    masks = "seeds/" if getattr(arguments, "refine", "") == "none" else "pseudo_masks/"
    with processes.only_first(in_use(arguments.out, "infer.py", flag="--out")):
        match arguments:
            case MaskArguments():
                metrics = segmentation_masks.make_masks(run, state, source, arguments.out, **options)
                describe, use = mask_results.describe, "masks/"
            case PseudoMaskArguments():
                maps = arguments.maps or run.config.data.maps
                metrics = pseudo_masks.make_pseudo_masks(run, state, source, maps, arguments.out, **options)
                describe, use = pseudo_masks.describe, "masks/"
            case AMNArguments():
                maps = arguments.maps or run.config.data.maps
                metrics = amn_heatmaps.make_amn_heatmaps(run, state, source, maps, arguments.out, **options)
                describe, use = heatmap_results.describe, f"{masks} and maps/"
            case HeatMapArguments():
                metrics = heatmaps.make_heatmaps(run, state, prototypes, source, arguments.out, **options)
                describe, use = heatmap_results.describe, f"{masks} and maps/"
    if metrics:
        for text in describe(metrics):
            print(text)
        print(f"{metrics['pictures']} pictures are in {arguments.out}: look at index.html, use {use}.")


def parse(words: list[str]) -> HeatMapArguments | AMNArguments | PseudoMaskArguments | MaskArguments:
    """The flags; which there are, and their defaults, says the run."""
    ckpt = value_of_flag("--ckpt", words)
    config = Run.open(ckpt).config if ckpt else None
    defaults = {"inference": config.inference if config else Inference()}
    if isinstance(config, SegmentationConfig):
        kind = MaskArguments
    elif isinstance(config, IRNConfig):
        kind, defaults["refine"] = PseudoMaskArguments, "irn"
    elif isinstance(config, AMNConfig):
        kind = AMNArguments
    elif value_of_flag("--maps", words):
        kind, defaults["inference"] = PseudoMaskArguments, Refinement()
    else:
        kind = HeatMapArguments
    default = kind(ckpt=tyro.MISSING, out=tyro.MISSING, **defaults)
    arguments = tyro.cli(kind, args=words, description=__doc__, default=default)
    check_numbers("inference", arguments.inference)
    return arguments


def check_refinement(arguments: RefinementArguments, run: Run) -> None:
    """UserError for a refinement that this run does not have."""
    if arguments.refine == "irn" and not isinstance(run.config, IRNConfig):
        raise UserError(
            f"--refine irn: {arguments.ckpt} is no run of IRNet; train IRNet on its heat maps (train.py "
            "configs/voc12_irn.py --data.maps DIR) and name that run with --ckpt, or use --refine crf."
        )
    if arguments.saliency and arguments.refine != "crf":
        raise UserError(f"--saliency {arguments.saliency}: goes with --refine crf, not with {arguments.refine}.")


def source_of(arguments: Arguments, run: Run) -> RecordSource:
    """The pictures that are meant."""
    where = {"images": arguments.images, "root": arguments.root, "split": arguments.split}
    return pictures_of(run.config, run.class_names, **where, limit=arguments.limit)


if __name__ == "__main__":
    run_program(main)
