"""Your own pictures, two hundred or fewer, from labels to a segmentation network that does not learn them by heart.

    labels -> classifier, of which the last stage is trained -> CAM's heat maps -> masks by a CRF -> DeepLabV3+

With few pictures of every class and none of no class, LPCAM cannot tell an animal from the meadow that it is always
seen on, and CAM's seeds are better (docs/your_own_pictures.md). --saliency u2netp.onnx, a network that finds whatever
stands out, makes the masks better still (docs/seeds_to_segmentation.md says where it is from).

my_data is laid out as for configs/folder.py; resnet50.pth is torchvision's ImageNet file, or any other weights of a
ResNet-50. Of another backbone, --classifier.training.frozen and --network.training.frozen name its own parts.

    python -m lpcam_jax check-data my_data
    python -m lpcam_jax chain configs/folder_few_chain.py --data.root my_data --model.weights resnet50.pth \
        --workdir runs/mine
    python infer.py --ckpt runs/mine/network/run --out masks_new/ --images 'new/*.jpg'
"""

from lpcam_jax.chain.recipe import Chain, Stage

LAST_STAGE = ("--training.frozen", "conv1", "bn1", "layer1", "layer2", "layer3")


def get_chain() -> Chain:
    """The chain."""
    small = ("--training.crop", "256", "--model.rates", "4", "8", "12", "--training.steps", "150")
    return Chain(
        (
            Stage("classifier", "folder.py", (*LAST_STAGE, "--inference.seeds", "cam", "--inference.affinity", "none")),
            Stage("network", "folder_deeplab.py", (*LAST_STAGE, *small)),
        )
    )
