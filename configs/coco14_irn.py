"""COCO 2014, pseudo masks: IRNet trained on LPCAM's heat maps, for the paper's Table 2.

Expected, the paper's, on train: pseudo masks of 46.8 mIoU with LPCAM. Not run by us: it needs the archives and an
accelerator. DIR as for configs/coco14.py.

    python train.py configs/coco14.py --data.root DIR --model.weights resnet50.pth --workdir runs/coco14
    python infer.py --ckpt runs/coco14 --out heatmaps_coco/
    python train.py configs/coco14_irn.py --data.root DIR --data.maps heatmaps_coco/ --model.weights resnet50.pth \
        --workdir runs/coco14_irn
    python infer.py --ckpt runs/coco14_irn --maps heatmaps_coco/ --out pseudo_masks_coco/

Hardware: an accelerator with 16 GB.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig


def get_config() -> IRNConfig:
    """The recipe."""
    return IRNConfig(data=Data(source="coco14", train="train", seeds="train"))
