"""COCO 2014, last step: DeepLabV2 with ResNet-101, trained on seeds or pseudo masks: the paper's Table 3.

Expected, the paper's, on val: 44.5 mIoU from the pseudo masks of IRN with LPCAM (CAM: 42.0). Not run by us: it needs
the archives, weights and an accelerator. Weights and layout as for configs/voc12_deeplabv2.py; DIR as for
configs/coco14.py, with val2014.zip beside train2014.zip.

    python train.py configs/coco14.py --data.root DIR --model.weights resnet50.pth --workdir runs/coco14
    python infer.py --ckpt runs/coco14 --out heatmaps/
    python train.py configs/coco14_deeplabv2.py --data.root DIR --data.masks heatmaps/pseudo_masks \
        --model.weights resnet101_caffe.pth --workdir runs/coco14_seg
    python infer.py --ckpt runs/coco14_seg --out masks/

The validation while training, on 40,504 pictures, comes only with the last step.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabTraining


def get_config() -> DeepLabConfig:
    """The recipe: VOC's, which the defaults are, but for its length and learning rate."""
    steps = 100_000
    return DeepLabConfig(
        data=Data(source="coco14", train="train", validation="val", seeds="val"),
        training=DeepLabTraining(steps=steps, learning_rate=2e-4, validate_every=steps, checkpoint_every=2000),
    )
