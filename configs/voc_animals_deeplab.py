"""Animals and person of VOC 2012, last step: DeepLabV3+ on a half-width ResNet-50, trained on seed masks on two cores.

The first 880 pictures of train_aug.txt train the classifier, give the seeds and train this network; the other 220 are
seen by none of them, and by no choice of a threshold. It begins with the classifier's weights. Expected mIoU there: 52,
from CAM's seeds 47, from LPCAM-A's of LPCAM-T (--prototypes.taught 437, --inference.affinity 5) 53, from true masks 57
(`benchmarks/RESULTS.md`). A quarter of an hour on two quiet cores; with --training.steps 2400, an hour: 56, CAM's 50,
from true masks 67.

    python train.py configs/voc_animals.py --data.root DIR --data.train 'train_aug.txt[:80%]' \
        --data.seeds 'train_aug.txt[:80%]' --model.weights thin_resnet50.npz --workdir runs/voc_animals_880
    python infer.py --ckpt runs/voc_animals_880 --out heatmaps/
    python -m lpcam_jax seeds --maps heatmaps/ --threshold best --out seeds/
    python train.py configs/voc_animals_deeplab.py --data.root DIR --data.masks seeds/ \
        --model.weights runs/voc_animals_880 --workdir runs/voc_animals_seg
    python infer.py --ckpt runs/voc_animals_seg --out masks/

Without --data.masks it is trained on the true masks: the bound.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabInference, DeepLabModel, DeepLabTraining


def get_config() -> DeepLabConfig:
    """The recipe."""
    return DeepLabConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train_aug.txt[:80%]",
            validation="train_aug.txt[80%:]",
            seeds="train_aug.txt[80%:]",
            truth="SegmentationClassAug",
            present=50,
        ),
        model=DeepLabModel(
            head="deeplabv3plus",
            head_width=128,
            blocks=(3, 4, 6, 3),
            width=32,
            stem_pool="symmetric",
            output_stride=16,
            mean=(104.0, 117.0, 123.0),
        ),
        training=DeepLabTraining(
            steps=600,
            batch_size=8,
            accumulate=1,
            crop=256,
            scales=(0.5, 0.75, 1.0, 1.25),
            optimizer="adamw",
            learning_rate=2e-4,
            head_multiplier=5.0,
            bias_multiplier=1.0,
            weight_decay=1e-2,
            hold=1,
            frozen=("conv1", "bn1", "layer1"),
            batch_norm="frozen",
            validate_every=250,
            checkpoint_every=100,
        ),
        inference=DeepLabInference(),
    )
