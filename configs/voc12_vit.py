"""PASCAL VOC 2012 with DINOv2's ViT-S/14, frozen: only the head is trained, a linear probe.

Not run by us: it needs the archives and the weights. Nothing is published to compare with; the paper's own networks are
in voc12.py. DIR is as there. dinov2_vits14_pretrain.pth is DINOv2's file; `hf:facebook/dinov2-small` and
`hf:timm/vit_small_patch14_dinov2.lvd142m` hold the same under other names.

The features are 14 pixels apart and may be negative, so that LPCAM's cosines are in [-1, 1].

    python train.py configs/voc12_vit.py --data.root DIR --model.weights dinov2_vits14_pretrain.pth --workdir runs/vit
    python infer.py --ckpt runs/vit --out heatmaps_vit/
"""

from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(source="voc12", train="train_aug", seeds="train", validation="val"),
        model=ViTConfig(patch=14, position_grid=37, position_resize="offset", layer_scale=True),
        training=LPCAMTraining(
            crop=448,  # 32 patches
            optimizer="adamw",
            learning_rate=1e-3,
            head_multiplier=1.0,
            weight_decay=1e-2,
            frozen=("all",),
        ),
    )
