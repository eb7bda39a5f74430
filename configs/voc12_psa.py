"""PASCAL VOC 2012, pseudo masks by psa's affinity network as MCTformer uses it, on its heat maps or on LPCAM's.

Expected, the paper's, on train: pseudo masks of 70.8 mIoU with MCTformer and LPCAM, 69.1 with MCTformer alone. Not run
by us: it needs the archives, the weights and an accelerator.

DIR as for configs/voc12.py. The backbone is a WideResNet-38 trained as a classifier of VOC, a .pth file with psa's
names (res38_cls.pth), or a run of configs/voc12_wrn38.py. psa's own settings are --labels.low 4 --labels.high 32
--training.learning-rate 0.1 --training.epochs 8 --inference.steps 256.

    python train.py configs/voc12_psa.py --data.root DIR --data.maps heatmaps_aug/ --model.weights res38_cls.pth \
        --workdir runs/psa
    python infer.py --ckpt runs/psa --maps heatmaps_aug/ --out pseudo_masks/                        # train, scored
    python infer.py --ckpt runs/psa --maps heatmaps_aug/ --out pseudo_masks_aug/ --split train_aug  # to train on

The paper's numbers are of MCTformer's maps: train from those of configs/voc12_mctformer.py, with --labels.method
mctformer_lpcam. --inference.background is best the threshold at which the seeds are best: 0.39, the default, for
MCTformer's maps, about 0.3 for LPCAM's.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.psa.config import PSAConfig, PSATraining


def get_config() -> PSAConfig:
    """The recipe."""
    return PSAConfig(
        data=Data(source="voc12", train="train_aug", seeds="train"),
        training=PSATraining(frozen=("conv1a", "b2", "b2_1", "b2_2")),
    )
