"""PASCAL VOC 2012, last step: UperNet with Swin-S, trained on seeds or pseudo masks: the paper's Table 3.

Expected, the paper's, on val: 71.1 mIoU from the pseudo masks of IRN with LPCAM (CAM: 65.9). Not run by us: it needs
the archives, weights and an accelerator. The paper does not state the size of its Swin transformer, and we found no
published recipe of it: this is S; T has --model.depths 2 2 6 2, B --model.dim 128. Where the paper is silent this is
mmsegmentation's recipe for these networks.

DIR as for configs/voc12.py. The weights are a Swin transformer's, trained on ImageNet-1k, or those of a whole UperNet
of mmsegmentation or transformers, whose classifiers are new if their classes are others.

    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps/ --split train_aug
    python train.py configs/voc12_upernet.py --data.root DIR --data.masks heatmaps/pseudo_masks \
        --model.weights hf:timm/swin_small_patch4_window7_224.ms_in1k --workdir runs/upernet
    python infer.py --ckpt runs/upernet --out masks/

Hardware: an accelerator with 80 GB; with --model.remat, a smaller one, or with --training.accumulate 4, where
batch norm sees 4 pictures at a time.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.upernet.config import UperNetConfig


def get_config() -> UperNetConfig:
    """The recipe."""
    return UperNetConfig(data=Data(source="voc12", train="train_aug", validation="val", seeds="val"))
