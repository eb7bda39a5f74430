"""Train a classifier and cluster its prototypes, or AMN, IRNet or a segmentation network: the recipe says which.

    python train.py configs/shapes.py --workdir runs/demo
    python train.py configs/folder.py --data.root my_data --workdir runs/my_data
    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python train.py configs/voc12_amn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \
        --workdir runs/amn
    python infer.py --ckpt runs/amn --maps heatmaps_aug/ --out heatmaps_amn/ --split train_aug
    python train.py configs/voc12_irn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \
        --workdir runs/irn
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks/ --split train_aug
    python train.py configs/voc12_deeplabv2.py --data.root DIR --data.masks pseudo_masks/masks --workdir runs/seg

The same command continues a run that was stopped, and does nothing when all is done.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from lpcam_jax import devices, processes
from lpcam_jax.config import AMNConfig, AnyConfig, Config, IRNConfig, SegmentationConfig
from lpcam_jax.data.checks import check_labels
from lpcam_jax.data.sources import (
    masked_source,
    seed_source,
    training_source,
    training_sources,
    with_classes,
    with_labels,
)
from lpcam_jax.errors import UserError
from lpcam_jax.locks import in_use
from lpcam_jax.scripts import parse_with_recipe, run_program
from lpcam_jax.training.amn import train_amn
from lpcam_jax.training.classification import train_classifier
from lpcam_jax.training.irn import train_irn
from lpcam_jax.training.prototype_stage import make_prototypes
from lpcam_jax.training.run import Run
from lpcam_jax.training.segmentation import train_segmentation
from lpcam_jax.training.state import trained_state
from lpcam_jax.training.sure_labels import label_pictures

CLASSIFIER, PROTOTYPES, LABELS, IRNET, AMN = "classifier", "prototypes", "labels", "irnet", "amn"
STAGES = {
    Config: (CLASSIFIER, PROTOTYPES),
    IRNConfig: (LABELS, IRNET),
    AMNConfig: (LABELS, AMN),
    SegmentationConfig: ("segmentation",),
}


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A recipe, and where its run is kept."""

    recipe: tyro.conf.Positional[str]
    """file with get_config(), e.g. configs/shapes.py; the flags below override it"""
    workdir: str
    """where the run is kept; the same folder continues it"""
    distributed: bool = False
    """one of several processes: see README"""
    stages: str = "all"
    """comma-separated stages to run: classifier, prototypes; of IRNet: labels, irnet; of AMN: labels, amn; a
    segmentation recipe is one"""


def main() -> None:
    """Run the stages."""
    config, arguments = parse_with_recipe(Arguments, sys.argv[1:], description=__doc__)
    stages = chosen_stages(config, arguments.stages)
    if arguments.distributed:
        processes.join()
    devices.remember_compilations()
    if isinstance(config, SegmentationConfig):
        directory, out = segmentation(config, arguments.workdir), "masks/"
    elif isinstance(config, IRNConfig):
        directory, out = irnet_or_amn(config, arguments.workdir, stages), f"pseudo_masks/ --maps {config.data.maps}"
    elif isinstance(config, AMNConfig):
        directory, out = irnet_or_amn(config, arguments.workdir, stages), f"heatmaps_amn/ --maps {config.data.maps}"
    else:
        directory, out = classifier_and_prototypes(config, arguments.workdir, stages), "heatmaps/"
    print(f"{directory} is ready: python infer.py --ckpt {arguments.workdir} --out {out}")


def chosen_stages(config: AnyConfig, text: str) -> tuple[str, ...]:
    """The stages that are wanted; UserError for one that the recipe does not have."""
    known = STAGES[type(config)]
    stages = known if text == "all" else tuple(text.split(","))
    if unknown := sorted(set(stages) - set(known)):
        raise UserError(f"--stages {text}: this recipe has no stage {unknown[0]!r}; it has {', '.join(known)}.")
    return stages


def classifier_and_prototypes(config: AnyConfig, workdir: str, stages: Sequence[str]) -> Path:
    """Train the classifier and cluster its features; returns the run's folder."""
    mesh = devices.mesh()
    seeds = with_labels(seed_source(config), config.data.seeds)
    if CLASSIFIER in stages:
        pictures, validation = training_sources(config)
        check_labels(with_classes(with_labels(pictures, config.data.train), seeds.class_names, config.data.train))
    with processes.only_first(in_use(workdir, "train.py", flag="--workdir")):
        run = Run.create(workdir, config, seeds.class_names)
        if CLASSIFIER in stages:
            state = train_classifier(run, pictures, with_labels(validation, config.data.validation), devices=mesh)
        else:
            state = trained_state(run, devices=mesh)
        if PROTOTYPES in stages and not run.has_prototypes():
            make_prototypes(run, state, seeds, devices=mesh)
    return run.directory


def irnet_or_amn(config: IRNConfig | AMNConfig, workdir: str, stages: Sequence[str]) -> Path:
    """Label what the heat maps are sure of and train IRNet or AMN; returns the run's folder."""
    if not config.data.maps:
        name = "AMN" if isinstance(config, AMNConfig) else "IRNet"
        raise UserError(f"{name} is trained from heat maps; name the folder that infer.py wrote with --data.maps DIR.")
    pictures = training_source(config)
    if AMN in stages:
        pictures = with_labels(pictures, config.data.train)
    with processes.only_first(in_use(workdir, "train.py", flag="--workdir")):
        run = Run.create(workdir, config, pictures.class_names)
        labelled = label_pictures(run, pictures)
        if IRNET in stages:
            train_irn(run, labelled, devices=devices.mesh())
        if AMN in stages:
            train_amn(run, labelled, devices=devices.mesh())
    return run.directory


def segmentation(config: SegmentationConfig, workdir: str) -> Path:
    """Train a segmentation network; returns the run's folder."""
    pictures, validation = training_sources(config)
    pictures = masked_source(pictures, config.data)
    with processes.only_first(in_use(workdir, "train.py", flag="--workdir")):
        run = Run.create(workdir, config, pictures.class_names)
        train_segmentation(run, pictures, validation, devices=devices.mesh())
    return run.directory


if __name__ == "__main__":
    run_program(main)
