"""Apply a trained run to pictures: heat maps, seeds and pseudo masks, or segmentation masks.

    python infer.py --ckpt runs/demo --out heatmaps/
    python infer.py --ckpt runs/demo --out heatmaps_mine/ --images 'my/*.jpg'
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python infer.py --ckpt runs/amn --maps heatmaps_aug/ --out heatmaps_amn/ --split train_aug
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks/ --split train_aug
    python infer.py --ckpt runs/seg --out masks/

Without --images: the pictures of the run's --data.seeds, scored if there are true masks; heat maps are made for their
labels. With --images: any pictures; heat maps are made for the predicted classes. The available flags depend on the
run: `python infer.py --ckpt RUN --help`. The same command resumes stopped work.
"""

import dataclasses

import tyro

from ..config import check_numbers
from ..config.command_line import parse_flags
from ..config.recipes import value_of_flag
from ..config.registry import DEFAULT, load_system
from ..data.sources import pictures_of
from ..machine import devices, processes
from ..machine.errors import UserError
from ..machine.locks import in_use
from ..report.names import written
from ..results.shown import look_at
from ..systems.base import InferFlags, System
from ..training.run import Job, Run


def main(words: list[str]) -> None:
    """Compute, write and score the results, and print a summary.

    Args:
        words: the command line after the program's name.
    """
    system, flags = parse(words)
    if flags.distributed:
        processes.join()
    devices.start()
    run = Run.open(flags.ckpt).with_inference(flags.inference)
    where = {"images": flags.images, "root": flags.root, "split": flags.split, "limit": flags.limit}
    pictures = pictures_of(run.config, run.class_names, **where)
    infer = system.inference(Job(run, devices.mesh()), flags, pictures)
    with processes.only_first(in_use(flags.out, "infer.py", flag="--out")):
        processes.wait()  # where the first is refused the folder, no other changes anything in it
        metrics = infer()
    if metrics:
        for line in system.describe(metrics):
            print(line)
        pictures = written(metrics["pictures"], "picture")
        print(f"{pictures} in {flags.out}: {look_at(flags.out)}use {system.results(flags)}.")


def parse(words: list[str]) -> tuple[System, InferFlags]:
    """Parse the command line: the system of the run, and its flags with the run's inference settings as defaults."""
    ckpt = value_of_flag("--ckpt", words)
    config = Run.open(ckpt).config if ckpt else None
    system = load_system(config.kind if config else DEFAULT)
    expect_own_maps(system, words, ckpt)
    settings = {} if config is None else {"inference": config.inference}
    default = system.flags(ckpt=tyro.MISSING, out=tyro.MISSING, **settings)
    chosen_by = ["--ckpt", ckpt] if ckpt else []
    flags = parse_flags(system.flags, words, command="infer", description=__doc__, default=default, chosen_by=chosen_by)
    check_numbers(flags.inference, "inference.")
    return system, flags


def expect_own_maps(system: System, words: list[str], ckpt: str | None) -> None:
    """Raise UserError for --maps or --refine if the run's system has no such flag."""
    known = {field.name for field in dataclasses.fields(system.flags)}
    for flag in ("maps", "refine"):
        if flag not in known and (value := value_of_flag(f"--{flag}", words)) is not None:
            if ckpt is None:
                raise UserError(f"--{flag} {value}: name the run that does this, with --ckpt.")
            raise UserError(
                f"--{flag} {value}: a run of kind {system.kind} has no flag --{flag}; omit it, or refine heat maps by "
                f"a CRF: python -m lpcam_jax refine --ckpt {ckpt} --maps DIR --refine crf --out pseudo_masks_crf/."
            )
