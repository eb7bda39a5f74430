"""Animals and person of VOC 2012, better heat maps: AMN trained on those of configs/voc_animals.py, on two cores.

Expected, on the 437 pictures: seeds of 75.7 mIoU from LPCAM's 62.5, each at its best threshold, and 78.1 by the CRF
(`benchmarks/RESULTS.md`). Six minutes for the labels, six of training.

    python train.py configs/voc_animals.py --data.root DIR --model.weights thin_resnet50.npz --workdir runs/voc_animals
    python infer.py --ckpt runs/voc_animals --out heatmaps/
    python train.py configs/voc_animals_amn.py --data.root DIR --data.maps heatmaps/ --model.weights thin_resnet50.npz \
        --workdir runs/voc_animals_amn
    python infer.py --ckpt runs/voc_animals_amn --maps heatmaps/ --out heatmaps_amn/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig, AMNInference, AMNModel, AMNTraining


def get_config() -> AMNConfig:
    """The recipe: of few steps, so at ten times the reference's rates; of small crops, so at half its dilations."""
    return AMNConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train.txt",
            seeds="train.txt",
            truth="SegmentationClassAug",
            present=50,
        ),
        model=AMNModel(
            width=32,
            layout="caffe",
            channel_order="bgr",
            mean=(104.0, 117.0, 123.0),
            std=(1.0, 1.0, 1.0),
            rates=(3, 6, 9, 12),
        ),
        training=AMNTraining(
            batch_size=8,
            crop=320,
            learning_rate=5e-5,
            frozen=("conv1", "bn1", "layer1"),
            checkpoint_every=50,
        ),
        inference=AMNInference(scales=(1.0, 0.5, 1.5)),
    )
