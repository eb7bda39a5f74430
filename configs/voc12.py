"""VOC 2012 with ResNet-50: the paper's recipe (Table 2, IRN row).

Expected: the paper's seeds on the 1,464 pictures of train.txt, mIoU 54.9 (CAM 48.8). Not run by us yet: the numbers are
the paper's. Needs the VOC devkit with the SBD masks of train_aug (10,582 pictures) and an accelerator.

    python train.py configs/voc12.py --data.root VOCdevkit/VOC2012 --model.weights resnet50.npz --workdir runs/voc12
    python infer.py --ckpt runs/voc12 --out heatmaps/
"""

from lpcam_jax.config import Config, Data


def get_config() -> Config:
    """The recipe: every default of `lpcam_jax/config.py` is the reference's for VOC."""
    return Config(
        data=Data(
            source="voc_layout", train="ImageSets/Segmentation/train_aug.txt", seeds="ImageSets/Segmentation/train.txt"
        )
    )
