"""The paper's tables on COCO 2014, as configs/paper/voc12.py on VOC.

Not run by us: it needs the archives, the weights and an accelerator. DIR as for configs/coco14.py.

    python -m lpcam_jax chain configs/paper/coco14.py --data.root DIR --workdir runs/paper_coco14 --only irn_lpcam \
        --coco14.model.weights resnet50.pth --coco14_irn.model.weights resnet50.pth
    python -m lpcam_jax paper --table 2 --data coco14 --results runs/paper_coco14
"""

from lpcam_jax.chain.paper import stages_of
from lpcam_jax.chain.recipe import Chain


def get_chain() -> Chain:
    """The chain; all is made of train, and the networks are scored on val."""
    return Chain(stages_of("coco14"))
