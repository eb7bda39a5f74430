"""PASCAL VOC 2012 with a WideResNet-38: the classifier of psa (Ahn and Kwak, CVPR 2018), and LPCAM on its features.

Expected, the original's: CAM 47.7 mIoU on train, 47.2 on val. Nobody has published LPCAM on this network. Not run by
us: it needs the archives, the weights and an accelerator.

DIR as in `voc12.py`. The weights are the authors' of the network, trained on ImageNet, a file of MXNet; or a .pth file
with psa's names.

Of the original, dropout behind the backbone and colour jitter are left out, and its frozen norms are trained, with
stored statistics.

    python train.py configs/voc12_wrn38.py --data.root DIR \
        --model.weights ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir runs/voc12_wrn38
    python infer.py --ckpt runs/voc12_wrn38 --out heatmaps/
"""

from lpcam_jax.backbones.wideresnet import WideResNet38Config
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(source="voc12", train="train_aug", seeds="train", validation="val"),
        model=WideResNet38Config(),
        training=LPCAMTraining(
            epochs=15,
            crop=448,
            long_side=(256, 512),
            weight_decay=5e-4,
            momentum=5e-4,
            frozen=("conv1a", "b2", "b2_1", "b2_2"),
        ),
        prototypes=Clustering(update="mean"),
    )
