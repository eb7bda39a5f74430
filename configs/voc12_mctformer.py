"""PASCAL VOC 2012 with MCTformer V2, and LPCAM in the place of its PatchCAM, for the paper's Table 2 (MCTformer row).

Expected, the paper's, on train: seeds of 63.5 mIoU with LPCAM, 61.7 with PatchCAM. Its pseudo masks (70.8 and 69.1) are
by psa's affinity network (configs/voc12_psa.py); IRN (configs/voc12_irn.py) takes these maps, too, both with
--labels.method mctformer_lpcam. Not run by us: it needs the archives, the weights and an accelerator. The paper does
not say which map LPCAM replaces; here PatchCAM, or with --inference.lpcam alone the fused one.

DIR is as for configs/voc12.py. DeiT-S is downloaded, or a file: deit_small_patch16_224-cd65a155.pth.

    python train.py configs/voc12_mctformer.py --data.root DIR \
        --model.weights hf:timm/deit_small_patch16_224.fb_in1k --workdir runs/mctformer
    python infer.py --ckpt runs/mctformer --out heatmaps_mctformer/

The authors' MCTformerV2.pth is read as well. An epoch at rates of 0 takes it as it is: --model.weights MCTformerV2.pth
--training.epochs 1 --training.learning-rate 0 --training.warm-up-rate 0 --training.least-rate 0.

Hardware: an accelerator with 16 GB; 9,900 steps.
"""

from lpcam_jax.config import Clustering, Data
from lpcam_jax.systems.mctformer.config import MCTformerConfig


def get_config() -> MCTformerConfig:
    """The recipe: the reference's defaults and its raw means. All training pictures train, as there."""
    return MCTformerConfig(
        data=Data(source="voc12", train="train_aug", seeds="train", held_out=0.0),
        prototypes=Clustering(update="mean"),
    )
