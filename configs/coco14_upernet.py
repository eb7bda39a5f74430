"""COCO 2014, last step: UperNet with Swin-S, trained on seeds or pseudo masks: the paper's Table 3.

Expected, the paper's, on val: 47.0 mIoU from the pseudo masks of IRN with LPCAM (CAM: 44.0). Not run by us: it needs
the archives, weights and an accelerator. Weights and sizes of Swin transformers as for configs/voc12_upernet.py; DIR as
for configs/coco14.py, with val2014.zip beside train2014.zip.

    python train.py configs/coco14.py --data.root DIR --model.weights resnet50.pth --workdir runs/coco14
    python infer.py --ckpt runs/coco14 --out heatmaps/
    python train.py configs/coco14_upernet.py --data.root DIR --data.masks heatmaps/pseudo_masks \
        --model.weights hf:timm/swin_small_patch4_window7_224.ms_in1k --workdir runs/coco14_upernet
    python infer.py --ckpt runs/coco14_upernet --out masks/

The validation while training, on 40,504 pictures, comes only with the last step.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetTraining


def get_config() -> UperNetConfig:
    """The recipe: VOC's, which the defaults are, twice as long."""
    steps = 80_000
    return UperNetConfig(
        data=Data(source="coco14", train="train", validation="val", seeds="val"),
        training=UperNetTraining(steps=steps, validate_every=steps, checkpoint_every=2000),
    )
