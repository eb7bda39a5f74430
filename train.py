"""Train a classifier and cluster its prototypes.

    python train.py configs/shapes.py --workdir runs/demo
    python train.py configs/folder.py --data.root my_data --workdir runs/my_data
    python train.py configs/voc12.py --data.root VOCdevkit/VOC2012 --model.weights resnet50.pth --workdir runs/voc12

The same command continues a run that was stopped, and does nothing when all is done.
"""

import sys
from dataclasses import dataclass

import tyro

from lpcam_jax import devices
from lpcam_jax.config import Config
from lpcam_jax.data.sources import seed_source, training_sources, with_classes, with_labels
from lpcam_jax.errors import UserError
from lpcam_jax.scripts import parse_with_recipe, run_program
from lpcam_jax.training.checkpoints import Run
from lpcam_jax.training.loop import train_classifier
from lpcam_jax.training.prototype_stage import make_prototypes
from lpcam_jax.training.state import trained_state

STAGES = ("classifier", "prototypes")


@dataclass(frozen=True, kw_only=True)
class Arguments(Config):
    """A recipe, and where its run is kept."""

    recipe: tyro.conf.Positional[str]
    """file with get_config(), e.g. configs/shapes.py; the flags below override it"""
    workdir: str
    """where the run is kept; the same folder continues it"""
    stages: str = ",".join(STAGES)
    """comma-separated stages to run"""


def main() -> None:
    """Run the stages."""
    config, arguments = parse_with_recipe(Arguments, sys.argv[1:], description=__doc__)
    stages = arguments.stages.split(",")
    if unknown := sorted(set(stages) - set(STAGES)):
        raise UserError(
            f"--stages {arguments.stages}: there is no stage {unknown[0]!r}; there are {', '.join(STAGES)}."
        )
    devices.remember_compilations()
    mesh = devices.mesh()
    seeds = with_labels(seed_source(config), config.data.seeds)
    run = Run.create(arguments.workdir, config, seeds.class_names)
    if "classifier" in stages:
        pictures, validation = training_sources(config)
        with_classes(pictures, run.class_names, config.data.train)
        state = train_classifier(run, pictures, validation, devices=mesh)
    else:
        state = trained_state(run, devices=mesh)
    if "prototypes" in stages and not run.has_prototypes():
        make_prototypes(run, state, seeds, devices=mesh)
    print(f"{run.directory} is ready: python infer.py --ckpt {arguments.workdir} --out heatmaps/")


if __name__ == "__main__":
    run_program(main)
