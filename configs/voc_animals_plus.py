"""Animals and person of VOC 2012, beyond the paper: LPCAM-T, one direction a class that learned from refined seeds.

As configs/voc_animals.py, whose CAM and LPCAM stand beside it in the maps, the scores and the gallery.

Expected (`benchmarks/SEEDS.md`): seeds of the 437 pictures of train.txt, each at its best threshold, mIoU over 7:
CAM 52.9, LPCAM 62.2, LPCAM-T 69.3 (53.5, 64.1 and 71.7 with a classifier of 880 of the 1,100 pictures). The prototype
stage took nine minutes and at most 7.2 GB of memory, of which the features that are learned from are 3.

    python train.py configs/voc_animals_plus.py --data.root DIR --model.weights thin_resnet50.npz \
        --workdir runs/voc_animals_plus
    python infer.py --ckpt runs/voc_animals_plus --out heatmaps/
"""

from dataclasses import replace
from pathlib import Path

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.systems.lpcam.config import LPCAMConfig


def get_config() -> LPCAMConfig:
    """The recipe."""
    config = load_recipe(str(Path(__file__).with_name("voc_animals.py")))
    return replace(config, prototypes=replace(config.prototypes, taught=437))
