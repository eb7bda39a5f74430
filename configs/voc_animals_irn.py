"""Animals and person of VOC 2012, pseudo masks: IRNet trained on the heat maps of configs/voc_animals.py, on two cores.

Expected (`benchmarks/RESULTS.md`), on the 437 pictures of train.txt, each at its best threshold: from seeds of 62.5
mIoU to 76.1; with CAM (--labels.method cam --labels.foreground 0.27 --labels.background 0.05) from 52.9 to 69.5.
Training took two minutes, edges and random walk three; the labels before it eleven, on a busy machine.

    python train.py configs/voc_animals.py --data.root DIR --model.weights thin_resnet50.npz --workdir runs/voc_animals
    python infer.py --ckpt runs/voc_animals --out heatmaps/
    python train.py configs/voc_animals_irn.py --data.root DIR --data.maps heatmaps/ --model.weights thin_resnet50.npz \
        --workdir runs/voc_animals_irn
    python infer.py --ckpt runs/voc_animals_irn --maps heatmaps/ --out pseudo_masks/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig, IRNTraining


def get_config() -> IRNConfig:
    """The recipe."""
    return IRNConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train.txt",
            seeds="train.txt",
            truth="SegmentationClassAug",
            present=50,
        ),
        model=ResNetConfig(
            width=32, layout="caffe", channel_order="bgr", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0)
        ),
        training=IRNTraining(
            epochs=4,
            batch_size=8,
            crop=320,
            displacement=False,
            checkpoint_every=50,
        ),
    )
