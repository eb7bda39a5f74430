"""Your own pictures, labelled by labels.csv, a folder a class, COCO, VOC, ...; DIR/masks/ if you want scores.

docs/your_own_pictures.md shows each layout; which one it is, and what the classes are, is told by looking.

Fine-tunes a ResNet-50; give its ImageNet weights with --model.weights, or expect little: a few thousand pictures do not
make good features from nothing. Seeds and masks are those of LPCAM-A, which on photographs were far better than LPCAM's
(docs/beyond_the_paper.md); --inference.affinity none leaves it out; LPCAM-A takes infer.py a fifth longer.

    python -m lpcam_jax check-data my_data
    python train.py configs/folder.py --data.root my_data --model.weights resnet50.pth --workdir runs/my_data
    python infer.py --ckpt runs/my_data --out heatmaps_mine/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import LPCAMConfig, LPCAMInference, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(source="folder"),
        training=LPCAMTraining(
            epochs=5,
            least_steps=60,
            crop=384,
            long_side=(320, 512),
            optimizer="adamw",
            learning_rate=1e-4,
            weight_decay=1e-2,
            head_init="zero",
        ),
        inference=LPCAMInference(affinity=5),
    )
