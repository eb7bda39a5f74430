"""Your own pictures, better heat maps: AMN trained on the heat maps of configs/folder.py.

A second network, which is told the labels and learns from what LPCAM's maps are sure of. On photographs of animals this
brought the most of all steps (configs/voc_animals_amn.py). Give ImageNet weights with --model.weights, as for the
classifier. All of it as one command: configs/folder_chain.py.

    python train.py configs/folder.py --data.root my_data --model.weights resnet50.pth --workdir runs/my_data
    python infer.py --ckpt runs/my_data --out heatmaps_mine/
    python train.py configs/folder_amn.py --data.root my_data --data.maps heatmaps_mine/ --model.weights resnet50.pth \
        --workdir runs/my_data_amn
    python infer.py --ckpt runs/my_data_amn --maps heatmaps_mine/ --out heatmaps_mine_amn/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.amn.config import AMNConfig, AMNModel, AMNTraining


def get_config() -> AMNConfig:
    """The recipe: as for the animals, of few steps and small crops."""
    return AMNConfig(
        data=Data(source="folder"),
        model=AMNModel(rates=(3, 6, 9, 12)),
        training=AMNTraining(least_steps=200, batch_size=8, crop=384, learning_rate=5e-5),
    )
