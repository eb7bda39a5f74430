"""The embedded data set, last step: DeepLabV2 trained on the seed masks of configs/shapes.py, with no pixel label.

The same scenes as there (a hundred more are validated on and never trained on); the same small ResNet, which goes on
from the classifier's weights. What is measured here says that the code works, not what LPCAM does on photographs.

    python train.py configs/shapes_deeplab.py --data.masks heatmaps/seeds --model.weights runs/demo --workdir runs/seg
    python infer.py --ckpt runs/seg --out masks/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabInference, DeepLabModel, DeepLabTraining


def get_config() -> DeepLabConfig:
    """The recipe."""
    return DeepLabConfig(
        data=Data(source="shapes", scenes=500, train="all[:400]", validation="all[400:]", seeds="all[400:]"),
        model=DeepLabModel(
            head="deeplabv2",
            rates=(3, 6, 9, 12),
            blocks=(1, 1, 1, 1),
            width=16,
            stem_width=16,
            layout="torchvision",
            stem_pool="symmetric",
            output_stride=8,
            channel_order="rgb",
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
        ),
        training=DeepLabTraining(
            steps=200,
            batch_size=16,
            accumulate=1,
            crop=128,
            scales=(1.0, 1.25, 1.5, 1.75, 2.0),
            optimizer="adamw",
            learning_rate=3e-4,
            head_multiplier=3.0,
            bias_multiplier=3.0,
            weight_decay=1e-2,
            hold=1,
            batch_norm="train",
            validate_every=50,
        ),
        inference=DeepLabInference(scales=(1.5,), max_shapes=3),
        seed=2,
    )
