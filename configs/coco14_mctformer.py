"""COCO 2014 with MCTformer V2, and LPCAM in the place of its PatchCAM.

No number is published for its seeds; the paper's Table 4 has MCTformer's segmentation, 42.0 mIoU on val. Not run by us:
it needs the archives, the weights and an accelerator. DIR is as for configs/coco14.py, DeiT-S as for
configs/voc12_mctformer.py. Selection and sample of the prototypes are those of configs/coco14.py.

    python train.py configs/coco14_mctformer.py --data.root DIR \
        --model.weights hf:timm/deit_small_patch16_224.fb_in1k --workdir runs/coco14_mctformer
    python infer.py --ckpt runs/coco14_mctformer --out heatmaps_coco_mctformer/

Hardware: an accelerator with 16 GB; 77,580 steps. The features that are clustered take 1 GB of the host's memory.
"""

from lpcam_jax.config import Clustering, Data
from lpcam_jax.systems.mctformer.config import MCTformerConfig


def get_config() -> MCTformerConfig:
    """The recipe: VOC's training; the prototypes as the reference makes them on COCO."""
    return MCTformerConfig(
        data=Data(source="coco14", train="train", seeds="train", held_out=0.0),
        prototypes=Clustering(
            threshold=0.25, clusters=20, context=(0.0, 0.5), pictures=100, sample=4096, update="mean"
        ),
    )
