"""Animals and person of VOC 2012 with a half-width ResNet-50: the whole method on real photographs, on two CPU cores.

Expected (`benchmarks/RESULTS.md`): validation mAP 0.90; seeds of the 437 pictures of train.txt, each at its best
threshold, mIoU over 7: CAM 53, LPCAM 62. Ten minutes of training and five of heat maps on two quiet cores.

    python train.py configs/voc_animals.py --data.root DIR --model.weights thin_resnet50.npz --workdir runs/voc_animals
    python infer.py --ckpt runs/voc_animals --out heatmaps/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig, LPCAMInference, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train_aug.txt",
            seeds="train.txt",
            truth="SegmentationClassAug",
            present=50,
        ),
        model=ResNetConfig(
            width=32,
            layout="caffe",
            channel_order="bgr",
            mean=(104.0, 117.0, 123.0),
            std=(1.0, 1.0, 1.0),
        ),
        training=LPCAMTraining(
            epochs=4,
            crop=256,
            long_side=(272, 416),
            optimizer="adamw",
            learning_rate=1e-4,
            weight_decay=1e-2,
            frozen=("conv1", "bn1", "layer1"),
            head_init="zero",
            checkpoint_every=50,
        ),
        prototypes=Clustering(cam_scales=(1.0, 0.5, 1.5)),
        inference=LPCAMInference(scales=(1.0, 0.5, 1.5)),
    )
