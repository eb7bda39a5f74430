"""Train the system of a recipe: a classifier and its prototypes, AMN, EDAM, MCTformer, IRNet, psa, DeepLab
or UperNet.

    python train.py configs/shapes.py --workdir runs/demo
    python train.py configs/folder.py --data.root my_data --model.weights resnet50.pth --workdir runs/my_data
    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python train.py configs/voc12_amn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \\
        --workdir runs/amn
    python infer.py --ckpt runs/amn --maps heatmaps_aug/ --out heatmaps_amn/ --split train_aug
    python train.py configs/voc12_irn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \\
        --workdir runs/irn
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks/ --split train_aug
    python train.py configs/voc12_deeplabv2.py --data.root DIR --data.masks pseudo_masks/masks \\
        --model.weights resnet101_caffe.pth --workdir runs/seg

The same command resumes a stopped run, and does nothing if the run is finished.
"""

from ..config.recipes import TrainFlags, parse_with_recipe
from ..config.registry import system_of
from ..machine import devices, processes
from ..machine.errors import UserError
from ..machine.locks import in_use
from ..machine.programs import as_called
from ..training.run import Job, Run


def main(words: list[str]) -> None:
    """Run the stages.

    Args:
        words: the command line after the program's name.
    """
    config, arguments = parse_with_recipe(TrainFlags, words, command="train", description=__doc__)
    system = system_of(config)
    stages = chosen_stages(system.stages, arguments.stages)
    if arguments.distributed:
        processes.join()
    devices.start()
    class_names, work = system.prepare(config, stages)
    with processes.only_first(in_use(arguments.workdir, "train.py", flag="--workdir")):
        processes.wait()  # where the first is refused the folder, no other changes anything in it
        run = Run.create(arguments.workdir, config, class_names)
        for stage in stages:
            work[stage](Job(run, devices.mesh()))
    print(as_called(f"{run.directory} is ready: {system.next_command(config, arguments.workdir)}"))


def chosen_stages(known: tuple[str, ...], text: str) -> tuple[str, ...]:
    """The requested stages, in their order; UserError for a stage that the recipe does not have."""
    if text == "all":
        return known
    if unknown := sorted(set(text.split(",")) - set(known)):
        raise UserError(f"--stages {text}: this recipe has no stage {unknown[0]!r}; it has {', '.join(known)}.")
    return tuple(stage for stage in known if stage in text.split(","))
