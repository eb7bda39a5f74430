"""PASCAL VOC 2012 with a Swin-S, all of it fine-tuned.

Not run by us: it needs the archives, the weights and an accelerator. Nothing is published to compare with; the paper's
own networks are in voc12.py. DIR is as there. The weights are Microsoft's, trained on ImageNet-1k; its own file
swin_small_patch4_window7_224.pth holds the same. Rates, decay and stochastic depth are those with which Swin
transformers are fine-tuned to segment; norms, biases and the tables of relative positions have no decay.

The features are 32 pixels apart, half as fine as the ResNet-50's of voc12.py, and may be negative.

    python train.py configs/voc12_swin.py --data.root DIR \
        --model.weights hf:timm/swin_small_patch4_window7_224.ms_in1k --workdir runs/swin
    python infer.py --ckpt runs/swin --out heatmaps_swin/
"""

from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(source="voc12", train="train_aug", seeds="train", validation="val"),
        model=SwinConfig(drop_path=0.3),
        training=LPCAMTraining(
            epochs=10,
            optimizer="adamw",
            learning_rate=6e-5,
            weight_decay=1e-2,
            power=1.0,
            frozen=(),
        ),
    )
