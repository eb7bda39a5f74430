"""Animals and person of VOC 2012 with MCTformer V2, the pictures of configs/voc_animals.py.

With weights it is DeiT-S, for an accelerator; not run by us, since no DeiT could be had. DIR is as there.

    python train.py configs/voc_animals_mctformer.py --data.root DIR \
        --model.weights hf:timm/deit_small_patch16_224.fb_in1k --workdir runs/voc_animals_mctformer
    python infer.py --ckpt runs/voc_animals_mctformer --out heatmaps_mctformer/

Without, it can be trained from scratch, smaller; expect little of a transformer that has seen 1,100 photographs.

    python train.py configs/voc_animals_mctformer.py --data.root DIR --model.dim 192 --model.depth 6 \
        --training.crop 160 --model.position-grid 10 --training.learning-rate 4e-3 --workdir runs/voc_animals_scratch
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.mctformer.config import MCTformerConfig, MCTformerTraining


def get_config() -> MCTformerConfig:
    """The recipe: the reference's, with a batch that such few pictures fill 30 times an epoch."""
    return MCTformerConfig(
        data=Data(
            source="voc_layout",
            classes=("cat", "cow", "dog", "horse", "person", "sheep"),
            train="train_aug.txt",
            seeds="train.txt",
            truth="SegmentationClassAug",
            present=50,
        ),
        training=MCTformerTraining(batch_size=32, checkpoint_every=100),
    )
