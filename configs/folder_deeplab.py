"""Your own pictures, last step: DeepLabV3+ with ResNet-50, trained on the seed masks of configs/folder.py.

Give the network's ImageNet weights with --model.weights, or the classifier's with --model.weights runs/my_data. A tenth
of the pictures is held out; where they have true masks, mIoU is printed while training.

    python train.py configs/folder.py --data.root my_data --model.weights resnet50.pth --workdir runs/my_data
    python infer.py --ckpt runs/my_data --out heatmaps_mine/
    python train.py configs/folder_deeplab.py --data.root my_data --data.masks heatmaps_mine/pseudo_masks \
        --model.weights resnet50.pth --workdir runs/my_data_seg
    python infer.py --ckpt runs/my_data_seg --out masks_mine/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabModel, DeepLabTraining


def get_config() -> DeepLabConfig:
    """The recipe."""
    return DeepLabConfig(
        data=Data(source="folder"),
        model=DeepLabModel(
            head="deeplabv3plus",
            blocks=(3, 4, 6, 3),
            layout="torchvision",
            stem_pool="symmetric",
            output_stride=16,
            channel_order="rgb",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
        ),
        training=DeepLabTraining(
            steps=5000,
            batch_size=8,
            accumulate=1,
            crop=384,
            optimizer="adamw",
            learning_rate=1e-4,
            bias_multiplier=10.0,
            weight_decay=1e-2,
            hold=1,
            batch_norm="frozen",
            validate_every=1000,
        ),
    )
