"""COCO 2014 with ResNet-50: the experiment of the paper's Table 2 (IRN row, seed masks).

Expected, the paper's, on the 82,783 pictures of train2014: seeds CAM 33.1 mIoU, LPCAM 35.8. Not run by us: it needs
the archives and an accelerator.

DIR holds train2014.zip and annotations_trainval2014.zip, or the same unpacked; they are prepared at the first start
(drawing the masks takes about ten minutes; a stopped preparation goes on). resnet50.pth is torchvision's
ImageNet file (IMAGENET1K_V1).

Hardware: an accelerator with 16 GB, as for configs/voc12.py; 25,865 steps. The features that are clustered take 5.4 GB
of the host's memory.

    python train.py configs/coco14.py --data.root DIR --model.weights resnet50.pth --workdir runs/coco14
    python infer.py --ckpt runs/coco14 --out heatmaps/

Pictures of no class are kept, as in the reference. Ours: k-means++ instead of uniform starts, at most 100 iterations,
at most 4,096 features a class and set, another random draw of the 100 pictures.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.lpcam.config import Clustering, LPCAMConfig


def get_config() -> LPCAMConfig:
    """The recipe: the reference's for COCO where it differs from VOC's, which the defaults are."""
    return LPCAMConfig(
        data=Data(source="coco14", train="train", seeds="train", held_out=0.0),
        prototypes=Clustering(
            threshold=0.25, clusters=20, context=(0.0, 0.5), pictures=100, sample=4096, update="mean"
        ),
    )
