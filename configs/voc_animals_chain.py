"""Animals and person of VOC 2012, from labels to a segmentation network, on two cores.

As configs/folder_chain.py, with the recipes of configs/voc_animals.py and its kin. All of it is done with 880 pictures,
and the network's masks are scored on 220 that nothing has seen.

    python -m lpcam_jax chain configs/voc_animals_chain.py --data.root DIR --model.weights thin_resnet50.npz \
        --network.model.weights runs/animals/classifier/run --workdir runs/animals
"""

from lpcam_jax.chain.recipe import Chain, Stage

SEEN = ("--data.train", "train_aug.txt[:80%]", "--data.seeds", "train_aug.txt[:80%]")


def get_chain() -> Chain:
    """The chain."""
    after_amn = ("--labels.method", "amn", "--labels.background", "0.15", "--inference.power", "1.3")
    return Chain(
        (
            Stage("classifier", "voc_animals.py", (*SEEN, "--data.validation", "train_aug.txt[80%:]")),
            Stage("amn", "voc_animals_amn.py", SEEN),
            Stage("irn", "voc_animals_irn.py", SEEN, after={"amn": after_amn}, optional=True),
            Stage("network", "voc_animals_deeplab.py"),
        )
    )
