"""PASCAL VOC 2012, last step: DeepLabV2 with ResNet-101, trained on seeds or pseudo masks: the paper's Table 3.

Expected, the paper's, on val: 68.6 mIoU from the pseudo masks of IRN with LPCAM (CAM: 63.5). From bare seeds, without
IRN, expect several points less. Not run by us: it needs the archives, weights and an accelerator. With true masks and
COCO weights the recipe's source reports 76.65 (77.93 with a CRF).

DIR as for configs/voc12.py. The weights are those of a ResNet-101 in the Caffe (MSRA) layout, on BGR pixels (where they
are: docs/backbones.md), or a whole DeepLabV2 of kazuto1011/deeplab-pytorch or isht7/pytorch-deeplab-resnet (`python -m
lpcam_jax convert FILE --out weights/` tells). torchvision's ResNet-101 is another network; at your own risk, its flags
are --model.layout torchvision --model.stem-pool symmetric --model.channel-order rgb --model.mean 123.675 116.28 103.53
--model.std 58.395 57.12 57.375.

    python train.py configs/voc12.py --data.root DIR --model.weights resnet50.pth --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps/ --split train_aug
    python train.py configs/voc12_deeplabv2.py --data.root DIR --data.masks heatmaps/pseudo_masks \
        --model.weights resnet101_caffe.pth --workdir runs/seg
    python infer.py --ckpt runs/seg --out masks/

Hardware: an accelerator with 16 GB. The defaults of `lpcam_jax/systems/deeplab/config.py` are the recipe's for
VOC.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig


def get_config() -> DeepLabConfig:
    """The recipe."""
    return DeepLabConfig(data=Data(source="voc12", train="train_aug", validation="val", seeds="val"))
