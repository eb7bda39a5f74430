"""Animals and person of VOC 2012: LPCAM, and pseudo masks by EDAM's rule, which asks a saliency network where to look.

As configs/voc12_edam_lpcam.py, on two cores, with the recipes of configs/voc_animals.py: 880 pictures train, and the
network's masks are scored on 220 that nothing has seen.

    python -m lpcam_jax chain configs/voc_animals_edam_lpcam.py --data.root DIR --model.weights thin_resnet50.npz \
        --network.model.weights runs/animals_edam/classifier/run --saliency u2netp.onnx --workdir runs/animals_edam
"""

from lpcam_jax.chain.recipe import Chain, Stage

SEEN = ("--data.train", "train_aug.txt[:80%]", "--data.seeds", "train_aug.txt[:80%]")


def get_chain() -> Chain:
    """The chain."""
    classifier = (*SEEN, "--data.validation", "train_aug.txt[80%:]", "--saliency", "u2netp.onnx")
    return Chain(
        (
            Stage("classifier", "voc_animals.py", classifier),
            Stage("network", "voc_animals_deeplab.py"),
        )
    )
