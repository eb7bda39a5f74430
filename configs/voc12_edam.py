"""PASCAL VOC 2012 with EDAM (Wu et al., CVPR 2021): attention between pictures that share a class, on a WideResNet-38.

Expected, the authors', on train: maps of 52.8 mIoU, 58.6 after the CRF, pseudo masks of 68.1 with CRF and saliency. Not
run by us: it needs the archives, the weights, saliency maps and an accelerator. LPCAM's row of the same name in the
paper, 54.9 and 69.6, needs no EDAM: it is most likely the maps of configs/voc12.py with infer.py's --saliency.

DIR as for configs/voc12.py. The weights are those of the network's authors, trained on ImageNet, a file of MXNet; or a
.pth file with psa's names. SALIENCY holds 8-bit maps, ID.png, of any saliency network; the authors' are PoolNet's.

    python train.py configs/voc12_edam.py --data.root DIR \
        --model.weights ilsvrc-cls_rna-a1_cls1000_ep-0001.params --workdir runs/edam
    python infer.py --ckpt runs/edam --out heatmaps_edam/ --saliency SALIENCY                      # train, scored
    python infer.py --ckpt runs/edam --out heatmaps_edam_aug/ --saliency SALIENCY --split train_aug

The authors' own EDAM is read as well, whole. An epoch at a rate of 0 takes it as it is: --model.weights EDAM.pth
--training.epochs 1 --training.learning-rate 0.

The original's list of pairs is not published: they are drawn as it must have been made, every picture once in each of
25 passes.

Hardware: an accelerator; what its memory must hold is a row of `python -m benchmarks.cost`. 33,050 steps of four pairs.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.edam.config import EDAMConfig, EDAMTraining


def get_config() -> EDAMConfig:
    """The recipe: the reference's, which the defaults are. All training pictures train, as there."""
    return EDAMConfig(
        data=Data(source="voc12", train="train_aug", seeds="train", held_out=0.0),
        training=EDAMTraining(frozen=("conv1a", "b2", "b2_1", "b2_2")),
    )
