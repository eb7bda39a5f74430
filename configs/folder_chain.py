"""Your own pictures, from labels to a segmentation network by one command.

    labels -> classifier -> LPCAM's heat maps -> AMN's -> masks by a CRF -> DeepLabV3+ -> masks of any picture

With two hundred pictures or fewer take configs/folder_few_chain.py. Here are the steps that brought most on photographs
(benchmarks/RESULTS.md), with crops and steps for two cores; on a GPU give
--amn.training.crop 384 --network.training.crop 384 --network.model.rates 6 12 18 --network.training.steps 5000.
--also irn refines AMN's maps by a random walk up to learned edges instead, --without amn trains on LPCAM-A's masks,
--without network ends with masks. No true mask is needed; with my_data/masks/, every step is scored.

my_data is laid out as for configs/folder.py; resnet50.pth is torchvision's ImageNet file, or any other weights of a
ResNet-50. --dry-run shows the steps and does nothing.

    python -m lpcam_jax chain configs/folder_chain.py --data.root my_data --model.weights resnet50.pth \
        --workdir runs/mine
    python infer.py --ckpt runs/mine/network/run --out masks_new/ --images 'new/*.jpg'
"""

from lpcam_jax.chain.recipe import Chain, Stage

# Of IRN, on the maps of AMN.
AFTER_AMN = (
    *("--labels.method", "amn", "--labels.foreground", "0.45", "--labels.background", "0.15"),
    *("--inference.power", "1.3"),
)


def get_chain() -> Chain:
    """The chain."""
    return Chain(
        (
            Stage("classifier", "folder.py"),
            Stage("amn", "folder_amn.py", ("--training.crop", "256", "--training.least-steps", "100")),
            Stage("irn", "folder_irn.py", after={"amn": AFTER_AMN}, optional=True),
            Stage(
                *("network", "folder_deeplab.py"),
                # The head reaches as far as the crop, not further.
                ("--training.crop", "256", "--model.rates", "4", "8", "12", "--training.steps", "500"),
            ),
        )
    )
