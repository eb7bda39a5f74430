"""Training, inference, and tools for data, weights, runs and results.

    python train.py configs/shapes.py --workdir runs/demo
    python infer.py --ckpt runs/demo --out heatmaps/
    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --model.weights resnet50.pth \\
        --workdir runs/mine
    python -m lpcam_jax check-data my_data
    python -m lpcam_jax convert resnet50.pth --out weights/
    python -m lpcam_jax demo-app --ckpt runs/demo
    python -m lpcam_jax doctor
    python -m lpcam_jax evaluate configs/shapes.py --predictions heatmaps/ --out scores/
    python -m lpcam_jax export --format coco --masks heatmaps/ --out instances.json
    python -m lpcam_jax faithfulness --ckpt runs/demo --maps heatmaps/ --out scores/ --limit 2
    python -m lpcam_jax paper --table 2
    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --out pseudo_masks_crf/
    python -m lpcam_jax saliency --images 'my/*.jpg' --weights u2netp.onnx --out saliency/
    python -m lpcam_jax seeds --maps heatmaps/ --method cam --threshold best --out seeds_cam/
    python -m lpcam_jax sweep --ckpt runs/demo --out sweep/

`python -m lpcam_jax COMMAND --help` explains a command.
"""

import importlib
import sys

from . import __version__
from .config.command_line import near
from .machine.errors import UserError
from .machine.programs import as_called, run_program

COMMANDS = {
    "train": "train the system of a recipe",
    "infer": "apply a trained run to pictures",
    "check-data": "check a folder of pictures, labels and masks for errors and oddities, with how to fix them",
    "chain": "run a chain: from labels to a segmentation network, all steps by one command",
    "convert": "convert pretrained PyTorch weights to this package's format, with a report",
    "demo-app": "a page in the browser that maps the pictures one drops on it, with a trained run",
    "doctor": "what is installed here, what is missing for what, and the machine",
    "evaluate": "score a folder of maps or masks against any data set with masks",
    "export": "export maps, masks (COCO, YOLO, CVAT, ...) and runs (ONNX, Hugging Face Hub) to others",
    "faithfulness": "how faithful heat maps are to their classifier: insertion, deletion, average drop, ROAD",
    "paper": "the paper's tables, the chain's stage of each number, and ours beside it",
    "refine": "pseudo masks from a folder of heat maps, by a CRF, PAR or saliency; no training",
    "saliency": "saliency maps of pictures, by U2-Net with its published weights; no training",
    "seeds": "seed masks from a folder of heat maps, for any method and threshold",
    "sweep": "seed quality over the method's parameters (paper, Figure 5)",
}


def main(words: list[str]) -> None:
    """Run one command.

    Args:
        words: the command's name, and its flags.
    """
    if not words or words[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<14}{summary}" for name, summary in COMMANDS.items())
        print(as_called(f"{__doc__}\ncommands:\n{lines}"))
        return
    if words[0] == "--version":
        print(f"lpcam_jax {__version__}")
        return
    if words[0] not in COMMANDS:
        known = list(COMMANDS)
        raise UserError(f"there is no command {words[0]!r}{near(words[0], known)} There are {', '.join(known)}.")
    importlib.import_module(f".commands.{words[0].replace('-', '_')}", __package__).main(words[1:])


def program() -> None:
    """The program `lpcam`."""
    run_program(lambda: main(sys.argv[1:]))


if __name__ == "__main__":
    program()
