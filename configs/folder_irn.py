"""Your own pictures, pseudo masks: IRNet trained on the heat maps of configs/folder.py.

Give the network's ImageNet weights with --model.weights, as for the classifier. infer.py has refined the seeds with a
CRF already, which needs no training (heatmaps_mine/pseudo_masks); this takes longer, and is better where objects have
edges that a network can learn.

    python train.py configs/folder.py --data.root my_data --model.weights resnet50.pth --workdir runs/my_data
    python infer.py --ckpt runs/my_data --out heatmaps_mine/
    python train.py configs/folder_irn.py --data.root my_data --data.maps heatmaps_mine/ --model.weights resnet50.pth \
        --workdir runs/my_data_irn
    python infer.py --ckpt runs/my_data_irn --maps heatmaps_mine/ --out pseudo_masks_mine/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig, IRNTraining


def get_config() -> IRNConfig:
    """The recipe."""
    return IRNConfig(
        data=Data(source="folder"), training=IRNTraining(least_steps=200, batch_size=16, crop=384, displacement=False)
    )
