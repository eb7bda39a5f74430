"""Animals and person of VOC 2012, pseudo masks by psa's affinity network on the maps of configs/voc_animals.py.

Expected (`benchmarks/RESULTS.md`), on the 437 pictures: from LPCAM's seeds of 62.2 mIoU to 72.5, the background at
0.3, a little more than the CRF brings; IRNet, configs/voc_animals_irn.py, brings more. The backbone is the half-width
ResNet-50, whose grid has 8 pixels per position, as a WideResNet-38's. Two minutes for the labels, eight of training
and two for the walk, on busy cores.

    python train.py configs/voc_animals.py --data.root DIR --model.weights thin_resnet50.npz --workdir runs/voc_animals
    python infer.py --ckpt runs/voc_animals --out heatmaps/
    python train.py configs/voc_animals_psa.py --data.root DIR --data.maps heatmaps/ --model.weights runs/voc_animals \
        --workdir runs/voc_animals_psa
    python infer.py --ckpt runs/voc_animals_psa --maps heatmaps/ --out pseudo_masks/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.psa.config import PSAConfig, PSAInference, PSATraining


def get_config() -> PSAConfig:
    """The recipe."""
    return PSAConfig(
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
        training=PSATraining(epochs=4, crop=320, frozen=("conv1", "bn1", "layer1"), checkpoint_every=50),
        inference=PSAInference(background=0.3),
    )
