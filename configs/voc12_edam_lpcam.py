"""PASCAL VOC 2012: the paper's row EDAM + LPCAM, from labels to a segmentation network.

    labels -> classifier -> LPCAM's heat maps -> CRF and saliency -> pseudo masks -> DeepLabV2

The paper does not say what it takes of EDAM. Its seeds are those of LPCAM on a ResNet-50, 54.9, so it is most likely
EDAM's rule alone: saliency says where an object is, the maps and the CRF which. Expected, the paper's: pseudo masks of
69.6 on train, DeepLabV2 71.8 on val with a ResNet-101 from COCO (EDAM's own: 68.1 and 70.9). Not run by us: it needs
the archives, the weights and an accelerator.

DIR as for configs/voc12.py. --saliency is a folder of 8-bit maps, ID.png (the authors' are PoolNet's), or weights of a
U2-Net, which makes them; without it, u2netp.onnx of the current folder (docs/seeds_to_segmentation.md says where it is
from).

    python -m lpcam_jax chain configs/voc12_edam_lpcam.py --data.root DIR --classifier.model.weights resnet50.pth \
        --network.model.weights resnet101_caffe.pth --saliency u2netp.onnx --workdir runs/edam_lpcam

The other reading, LPCAM on the features that EDAM has trained, is a linear probe of them:

    python train.py configs/voc12_wrn38.py --data.root DIR --model.weights runs/edam --model.no-final-relu \
        --training.frozen all --workdir runs/lpcam_on_edam
"""

from lpcam_jax.chain.recipe import Chain, Stage


def get_chain() -> Chain:
    """The chain; the network learns from train_aug, and the pseudo masks are scored on train."""
    return Chain(
        (
            Stage("classifier", "voc12.py", ("--split", "train_aug", "--saliency", "u2netp.onnx")),
            Stage("network", "voc12_deeplabv2.py"),
        )
    )
