"""The embedded data set, pseudo masks by psa's affinity network, on the heat maps of configs/shapes.py, in two minutes.

Measured: 52.2 mIoU, where the CRF alone reaches 53.3. The scenes are small, 12 x 16 positions of 8 pixels, so the walk
is short: 64 steps as on photographs lead nearly everywhere (39 to 43).

python train.py configs/shapes_psa.py --data.maps heatmaps/ --model.weights runs/demo --workdir runs/demo_psa
python infer.py --ckpt runs/demo_psa --maps heatmaps/ --out pseudo_masks_psa/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.psa.config import PSAConfig, PSAInference, PSALabels, PSATraining


def get_config() -> PSAConfig:
    """The recipe."""
    return PSAConfig(
        data=Data(source="shapes", scenes=400),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=16, stem_width=16, output_stride=8),
        labels=PSALabels(high=4.0),
        training=PSATraining(epochs=6, batch_size=16, crop=128, radius=4, optimizer="adamw", learning_rate=1e-3),
        inference=PSAInference(background=0.3, radius=3, steps=8),
        seed=2,
    )
