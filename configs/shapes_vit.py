"""The embedded data set with a small vision transformer, from scratch: 90 seconds of CPU time to train, no download.

It shows that the code works, and what a transformer without pretraining makes of 360 scenes, which is little: a mAP of
75.6 % on the scenes held out, prototypes of which some score below the 0.9 that is asked for, and seeds of 21.7 mIoU
(CAM) and 15.5 (LPCAM, which loses), each at its best threshold. With weights from elsewhere (docs/backbones.md) it is
another thing.

    python train.py configs/shapes_vit.py --workdir runs/demo_vit
    python infer.py --ckpt runs/demo_vit --out heatmaps_vit/
"""

from lpcam_jax.backbones.config import ViTConfig
from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig, LPCAMInference, LPCAMTraining


def get_config() -> LPCAMConfig:
    """The recipe."""
    return LPCAMConfig(
        data=Data(source="shapes", scenes=400),
        model=ViTConfig(patch=16, dim=96, depth=4, head_dim=32, position_grid=8),
        training=LPCAMTraining(
            epochs=16,
            batch_size=16,
            crop=128,
            long_side=(144, 224),
            optimizer="adamw",
            learning_rate=1e-3,
            head_multiplier=1.0,
            weight_decay=5e-2,
            frozen=(),
        ),
        prototypes=Clustering(cam_scales=(1.5, 2.0)),
        inference=LPCAMInference(scales=(1.5, 2.0), max_shapes=3),
        seed=2,
    )
