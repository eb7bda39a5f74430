"""PASCAL VOC 2012 with ResNet-50, beyond the paper: LPCAM-T, one direction a class that learned from refined seeds.

As configs/voc12.py, whose CAM and LPCAM stand beside it in the maps, the scores and the gallery. Not run by us: it
needs the archives and an accelerator; what is expected is measured on animals only (configs/voc_animals_plus.py).

    python train.py configs/voc12_plus.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12_plus
    python infer.py --ckpt runs/voc12_plus --out heatmaps/

The features of the 200 pictures that are learned from take about 6 GB of the host's memory
(by their number), and a step of teaching some more.
"""

from dataclasses import replace
from pathlib import Path

from lpcam_jax.config.recipes import load_recipe
from lpcam_jax.systems.lpcam.config import LPCAMConfig


def get_config() -> LPCAMConfig:
    """The recipe."""
    config = load_recipe(str(Path(__file__).with_name("voc12.py")))
    return replace(config, prototypes=replace(config.prototypes, taught=200))
