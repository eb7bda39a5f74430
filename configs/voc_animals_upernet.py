"""Animals and person of VOC 2012, last step: UperNet on a half-width ResNet-50, trained on seed masks on two cores.

The same pictures, and the same backbone, as in configs/voc_animals_deeplab.py: the two can be compared. The batch norm
of the backbone keeps its statistics, which batches of 8 would only disturb.

    python train.py configs/voc_animals.py --data.root DIR --data.train 'train_aug.txt[:80%]' \
        --data.seeds 'train_aug.txt[:80%]' --data.validation 'train_aug.txt[80%:]' \
        --model.weights thin_resnet50.npz --workdir runs/voc_animals_880
    python infer.py --ckpt runs/voc_animals_880 --out heatmaps/
    python -m lpcam_jax seeds --maps heatmaps/ --threshold best --out seeds/
    python train.py configs/voc_animals_upernet.py --data.root DIR --data.masks seeds/ \
        --model.weights thin_resnet50.npz --workdir runs/voc_animals_upernet
    python infer.py --ckpt runs/voc_animals_upernet --out masks/

Without --data.masks it is trained on the true masks: the bound.
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetInference, UperNetTraining


def get_config() -> UperNetConfig:
    """The recipe."""
    return UperNetConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train_aug.txt[:80%]",
            validation="train_aug.txt[80%:]",
            seeds="train_aug.txt[80%:]",
            truth="SegmentationClassAug",
            present=50,
        ),
        model=ResNetConfig(
            width=32,
            layout="caffe",
            output_stride=32,
            channel_order="bgr",
            mean=(104.0, 117.0, 123.0),
            std=(1.0, 1.0, 1.0),
        ),
        head=UperNetHead(width=64, auxiliary_width=64),
        training=UperNetTraining(
            steps=450,
            batch_size=8,
            fit=None,
            scale_range=(0.5, 1.25),
            crop=256,
            learning_rate=3e-4,
            warm_up=30,
            frozen=("conv1", "bn1", "layer1"),
            batch_norm="frozen",
            validate_every=225,
            checkpoint_every=100,
        ),
        inference=UperNetInference(fit=None),
    )
