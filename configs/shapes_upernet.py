"""The embedded data set, last step: UperNet trained on the seed masks of configs/shapes.py, with no pixel label.

The same scenes as there (a hundred more are validated on and never trained on); the same small ResNet, which goes on
from the classifier's weights. What is measured here says that the code works, not what LPCAM does on photographs.

    python train.py configs/shapes_upernet.py --data.masks heatmaps/seeds --model.weights runs/demo \
        --workdir runs/upernet
    python infer.py --ckpt runs/upernet --out masks/
"""

from lpcam_jax.backbones.config import ResNetConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.upernet.config import UperNetConfig, UperNetHead, UperNetInference, UperNetTraining


def get_config() -> UperNetConfig:
    """The recipe."""
    return UperNetConfig(
        data=Data(source="shapes", scenes=500, train="all[:400]", validation="all[400:]", seeds="all[400:]"),
        model=ResNetConfig(blocks=(1, 1, 1, 1), width=16, stem_width=16, output_stride=8),
        head=UperNetHead(width=32, auxiliary_width=32),
        training=UperNetTraining(
            steps=200,
            batch_size=16,
            fit=None,
            scale_range=(1.0, 2.0),
            crop=128,
            learning_rate=1e-3,
            warm_up=20,
            photometric=False,
            validate_every=50,
        ),
        inference=UperNetInference(fit=None, scales=(1.5,), max_shapes=3),
        seed=2,
    )
