"""COCO 2014, better heat maps: AMN trained on LPCAM's, for the paper's Table 2 (AMN row).

Expected, the paper's, on train: seeds of 42.5 mIoU with LPCAM, 40.3 with CAM; by IRN, trained on these maps, pseudo
masks of 47.7 and 46.7. Not run by us: it needs the archives and an accelerator. DIR as for configs/coco14.py.

    python train.py configs/coco14.py --data.root DIR --model.weights resnet50.pth --workdir runs/coco14
    python infer.py --ckpt runs/coco14 --out heatmaps_coco/
    python train.py configs/coco14_amn.py --data.root DIR --data.maps heatmaps_coco/ --model.weights resnet50.pth \
        --workdir runs/coco14_amn
    python infer.py --ckpt runs/coco14_amn --maps heatmaps_coco/ --out heatmaps_coco_amn/

    python train.py configs/coco14_irn.py --data.root DIR --data.maps heatmaps_coco_amn/ --labels.method amn \
        --labels.foreground 0.45 --labels.background 0.15 --model.weights resnet50.pth --workdir runs/coco14_amn_irn
    python infer.py --ckpt runs/coco14_amn_irn --maps heatmaps_coco_amn/ --inference.power 1.3 \
        --inference.background 0.22 --out pseudo_masks_coco_amn/

Hardware: an accelerator with 16 GB; 25,865 steps.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig


def get_config() -> AMNConfig:
    """The recipe."""
    return AMNConfig(data=Data(source="coco14", train="train", seeds="train"))
