"""Tools around a run.

    python -m lpcam_jax check-data my_data
    python -m lpcam_jax convert resnet50.pth --out weights/
    python -m lpcam_jax evaluate configs/shapes.py --predictions heatmaps/ --out scores/
    python -m lpcam_jax export --format coco --masks heatmaps/ --out instances.json
    python -m lpcam_jax faithfulness --ckpt runs/demo --maps heatmaps/ --out scores/ --limit 2
    python -m lpcam_jax refine --ckpt runs/demo --maps heatmaps/ --out pseudo_masks/
    python -m lpcam_jax seeds --maps heatmaps/ --method cam --threshold best --out seeds_cam/
    python -m lpcam_jax sweep --ckpt runs/demo --out sweep/

`python -m lpcam_jax COMMAND --help` explains one.
"""

import importlib
import sys

from .machine.errors import UserError
from .machine.programs import run_program

COMMANDS = {
    "check-data": "everything that is wrong or odd in a folder of pictures, labels and masks, with its fix",
    "convert": "pretrained weights of the torch world, as a file of ours, with a report of what was found",
    "evaluate": "score a folder of maps or masks against any data set with masks",
    "export": "maps and masks in the formats of other programs: IRN, COCO, LabelMe; the classifier as StableHLO",
    "faithfulness": "do the pixels that maps mark carry the class: insertion, deletion, average drop, ROAD",
    "refine": "pseudo masks from a folder of heat maps, by a CRF or by saliency; no training",
    "seeds": "seed masks from a folder of heat maps, of any method and threshold",
    "sweep": "seed quality over the method's parameters (paper, Figure 5)",
}


def main() -> None:
    """Run one command."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(f"{__doc__}\ncommands:\n" + "\n".join(f"  {name:<14}{what}" for name, what in COMMANDS.items()))
        return
    if words[0] not in COMMANDS:
        raise UserError(f"there is no command {words[0]!r}; there are {', '.join(COMMANDS)}.")
    importlib.import_module(f".commands.{words[0].replace('-', '_')}", __package__).main(words[1:])


if __name__ == "__main__":
    run_program(main)
