"""The embedded data set, pseudo masks: IRNet trained on the heat maps of configs/shapes.py, in a minute or two.

python train.py configs/shapes_irn.py --data.maps heatmaps/ --model.weights runs/demo --workdir runs/demo_irn
python infer.py --ckpt runs/demo_irn --maps heatmaps/ --out pseudo_masks/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.irn.config import IRNConfig, IRNTraining


def get_config() -> IRNConfig:
    """The recipe."""
    return IRNConfig(
        data=Data(source="shapes", scenes=400),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=16, stem_width=16, output_stride=16),
        training=IRNTraining(
            epochs=10,
            batch_size=16,
            crop=128,
            scale_range=(1.0, 2.0),
            radius=5,
            displacement=False,
            optimizer="adamw",
            learning_rate=3e-3,
        ),
        seed=2,
    )
