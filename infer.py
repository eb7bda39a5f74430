"""Heat maps, overlays and seed masks from a trained run.

    python infer.py --ckpt runs/demo --out heatmaps/
    python infer.py --ckpt runs/demo --out heatmaps_mine/ --images 'my/*.jpg'
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug

Without --images: the pictures that were clustered, with their labels, scored where there are masks. With --images:
any pictures, for the classes that are predicted. The same command continues what was stopped.
"""

import sys
from dataclasses import dataclass, field, replace

import tyro

from lpcam_jax import devices
from lpcam_jax.config import Inference
from lpcam_jax.data.pictures import Pictures, find_pictures
from lpcam_jax.data.sources import first, seed_source, with_classes
from lpcam_jax.errors import UserError
from lpcam_jax.heatmaps import describe, make_heatmaps
from lpcam_jax.scripts import run_program, value_of_flag
from lpcam_jax.training.checkpoints import Run
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
    """which part of it: a split, or a list of ids, as --data.seeds of train.py; empty: what was clustered"""
    limit: int | None = None
    """only the first pictures"""
    inference: Inference = field(default_factory=Inference)


def main() -> None:
    """Map, write, score, print."""
    ckpt = value_of_flag("--ckpt", sys.argv[1:])
    defaults = Run.open(ckpt).config.inference if ckpt else Inference()
    arguments = tyro.cli(
        Arguments, description=__doc__, default=Arguments(ckpt=tyro.MISSING, out=tyro.MISSING, inference=defaults)
    )
    devices.remember_compilations()
    mesh = devices.mesh()
    run = Run.open(arguments.ckpt)
    prototypes = run.load_prototypes()
    state = trained_state(run, devices=mesh)
    if arguments.split and (arguments.images or run.config.data.source in ("shapes", "folder")):
        raise UserError(f"--split {arguments.split}: there is no part of this name; leave --split out.")
    if arguments.images:
        source = Pictures(find_pictures(arguments.images), run.class_names)
    else:
        data = run.config.data
        data = replace(data, root=arguments.root or data.root, seeds=arguments.split or data.seeds)
        limit = run.config.limit if arguments.limit is None else arguments.limit
        source = with_classes(seed_source(replace(run.config, data=data, limit=limit)), run.class_names, data.root)
    metrics = make_heatmaps(
        run,
        state,
        prototypes,
        first(source, arguments.limit),
        arguments.out,
        inference=arguments.inference,
        devices=mesh,
    )
    for text in describe(metrics):
        print(text)
    print(f"{metrics['pictures']} pictures are in {arguments.out}: look at overlays/, use seeds/ and maps/.")


if __name__ == "__main__":
    run_program(main)
