"""MS COCO 2014, pseudo masks by psa's affinity network, as configs/voc12_psa.py.

Nothing is published to compare the masks with: the numbers for MCTformer on COCO are of the network trained on them.
Not run by us: it needs the archives, the weights and an accelerator. DIR as for configs/coco14.py.

    python train.py configs/coco14_psa.py --data.root DIR --data.maps heatmaps/ --model.weights res38_cls.pth \
        --workdir runs/psa
    python infer.py --ckpt runs/psa --maps heatmaps/ --out pseudo_masks/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.psa.config import PSAConfig, PSATraining


def get_config() -> PSAConfig:
    """The recipe."""
    return PSAConfig(
        data=Data(source="coco14", train="train", seeds="train"),
        training=PSATraining(frozen=("conv1a", "b2", "b2_1", "b2_2")),
    )
