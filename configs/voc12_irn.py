"""PASCAL VOC 2012, pseudo masks: IRNet trained on LPCAM's heat maps, for the paper's Table 2.

Expected, the paper's, on train: pseudo masks of 71.2 mIoU with LPCAM, 66.5 with CAM. Not run by us: it needs the
archives and an accelerator. For CAM, IRN's thresholds are --labels.method cam --labels.foreground 0.3
--labels.background 0.05, and --inference.background 0.25.

DIR as for configs/voc12.py. IRNet's backbone is a plain ResNet-50 of ImageNet, not the trained classifier.

    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python train.py configs/voc12_irn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \
        --workdir runs/irn
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks/                        # train, scored
    python infer.py --ckpt runs/irn --maps heatmaps_aug/ --out pseudo_masks_aug/ --split train_aug  # to train on

Hardware: an accelerator with 16 GB. The defaults of `lpcam_jax/systems/irn/config.py` are IRN's, with LPCAM's
thresholds.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig


def get_config() -> IRNConfig:
    """The recipe."""
    return IRNConfig(data=Data(source="voc12", train="train_aug", seeds="train"))
