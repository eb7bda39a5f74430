"""Animals and person of VOC 2012 with a VGG-16: `voc_animals.py` on a backbone of another family.

vgg16.npz holds the convolutions of an ImageNet VGG-16 converted from Caffe or Keras, or of torchvision's: then with
--model.channel-order rgb --model.mean 123.675 116.28 103.53 --model.std 58.395 57.12 57.375. The first command
trains the last three blocks; the second only the head, a linear probe, which is better.

Expected, with --model.layout psa --inference.scales 0.5 --prototypes.cam-scales 0.5, seeds of the 437 pictures of
train.txt, each at its best threshold, mIoU over 7 (benchmarks/RESULTS.md): of the probe CAM 43.1, LPCAM 62.4; of the
first, with --training.crop 160 --training.long-side 192 288, CAM 43.4, LPCAM 47.9.

    python train.py configs/voc_animals_vgg.py --data.root DIR --model.weights vgg16.npz --workdir runs/voc_animals_vgg
    python train.py configs/voc_animals_vgg.py --data.root DIR --model.weights vgg16.npz --workdir runs/vgg_probe \
        --training.frozen all
    python infer.py --ckpt runs/voc_animals_vgg --out heatmaps/
"""

from lpcam_jax.backbones.vgg import VGG16Config
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
        model=VGG16Config(
            channel_order="bgr",
            mean=(103.939, 116.779, 123.68),
            std=(1.0, 1.0, 1.0),
        ),
        training=LPCAMTraining(
            epochs=4,
            crop=256,
            long_side=(272, 416),
            optimizer="adamw",
            learning_rate=1e-4,
            weight_decay=1e-2,
            frozen=("block1", "block2"),
            head_init="zero",
            checkpoint_every=50,
        ),
        prototypes=Clustering(cam_scales=(1.0, 0.5, 1.5)),
        inference=LPCAMInference(scales=(1.0, 0.5, 1.5)),
    )
