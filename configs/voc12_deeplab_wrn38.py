"""PASCAL VOC 2012, last step: MCTformer's segmentation network, on a WideResNet-38, for the paper's Table 3 (daggers).

Expected, the paper's, on val: 72.6 mIoU from the pseudo masks of MCTformer with LPCAM (without: 71.9); on test 72.4 and
71.6. Not run by us: it needs the archives, the weights and an accelerator.

DIR as for configs/voc12.py. The weights are those of a WideResNet-38 trained as a classifier of VOC, a .pth file with
psa's names (res38_cls.pth), or a run of configs/voc12_wrn38.py. MCTformer's own file of this network is read whole,
with its head.

As there, all pictures of a batch have one scale, what pads small ones is background to the loss, masks are cut from the
maximum over five scales, and a CRF refines them. Of the original, dropout before the head is left out, and pictures are
resized for the scales by PIL's bicubic rule, not bilinearly.

    python infer.py --ckpt runs/psa --maps heatmaps_aug/ --out pseudo_masks_aug/ --split train_aug  # see voc12_psa.py
    python train.py configs/voc12_deeplab_wrn38.py --data.root DIR --data.masks pseudo_masks_aug/masks \
        --model.weights res38_cls.pth --workdir runs/seg_wrn38
    python infer.py --ckpt runs/seg_wrn38 --out masks/

Hardware: an accelerator with 16 GB; 79,350 steps, 30 epochs of the 10,582 pictures.
"""

from lpcam_jax.config import Data
from lpcam_jax.systems.deeplab.config import DeepLabConfig, DeepLabInference, DeepLabTraining, headed


def get_config() -> DeepLabConfig:
    """The recipe."""
    return DeepLabConfig(
        data=Data(source="voc12", train="train_aug", validation="val", seeds="val"),
        model=headed("wideresnet38")(head="largefov", head_width=512),
        training=DeepLabTraining(
            steps=79_350,
            batch_size=4,
            accumulate=1,
            scales=(0.7, 1.3),
            scaling="batch",
            padding="background",
            learning_rate=7e-4,
            bias_multiplier=10.0,
            weight_decay=0.0,
            momentum=1e-5,
            hold=1,
            frozen=("conv1a",),
            validate_every=10_000,
        ),
        inference=DeepLabInference(scales=(0.5, 0.75, 1.0, 1.25, 1.5), fusion="maximum", crf="mctformer"),
    )
