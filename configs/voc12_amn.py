"""PASCAL VOC 2012, better heat maps: AMN trained on LPCAM's, for the paper's Table 2 (AMN row).

Expected, the paper's, on train: seeds of 65.3 mIoU with LPCAM, 62.1 with CAM; by IRN, trained on these maps, pseudo
masks of 72.7 and 72.2. Not run by us: it needs the archives and an accelerator. For CAM, the thresholds are
--labels.method cam --labels.foreground 0.3 --labels.background 0.05.

DIR as for configs/voc12.py. AMN's backbone is a plain ResNet-50 of ImageNet, not the trained classifier.

    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps_aug/ --split train_aug
    python train.py configs/voc12_amn.py --data.root DIR --data.maps heatmaps_aug/ --model.weights resnet50.pth \
        --workdir runs/amn
    python infer.py --ckpt runs/amn --out heatmaps_amn/                        # train, scored
    python infer.py --ckpt runs/amn --out heatmaps_amn_aug/ --split train_aug  # for IRN

    python train.py configs/voc12_irn.py --data.root DIR --data.maps heatmaps_amn_aug/ --labels.method amn \
        --labels.foreground 0.45 --labels.background 0.15 --model.weights resnet50.pth --workdir runs/amn_irn
    python infer.py --ckpt runs/amn_irn --maps heatmaps_amn_aug/ --inference.power 1.3 --inference.background 0.25 \
        --out pseudo_masks_amn/

Hardware: an accelerator with 16 GB; 3,305 steps. The defaults of `lpcam_jax/systems/amn/config.py` are AMN's, with
LPCAM's thresholds. The authors' maps are made with the dropout of training left on; ours without.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig


def get_config() -> AMNConfig:
    """The recipe."""
    return AMNConfig(data=Data(source="voc12", train="train_aug", seeds="train"))
