"""The embedded data set with a small MCTformer, from scratch.

python train.py configs/shapes_mctformer.py --workdir runs/demo_mctformer
python infer.py --ckpt runs/demo_mctformer --out heatmaps_mctformer/
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.mctformer.config import (
    MCTformerConfig,
    MCTformerInference,
    MCTformerModel,
    MCTformerTraining,
)


def get_config() -> MCTformerConfig:
    """The recipe."""
    return MCTformerConfig(
        data=Data(source="shapes", scenes=400),
        model=MCTformerModel(patch=8, dim=96, depth=4, head_dim=32, position_grid=12),
        training=MCTformerTraining(
            epochs=40,
            batch_size=16,
            crop=96,
            area=(0.4, 1.0),
            randaugment=False,
            erase=0.0,
            drop_path=0.0,
            learning_rate=3.2e-2,
            warm_up=2,
        ),
        inference=MCTformerInference(max_shapes=3),
        seed=2,
    )
