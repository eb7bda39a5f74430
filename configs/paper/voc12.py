"""The paper's tables on PASCAL VOC 2012: every system from CAM's heat maps and from LPCAM's, up to two networks.

docs/paper.md has the paper's numbers and the stage of each. DIR as for configs/voc12.py. Not run by us: it needs the
archives, the weights and an accelerator. The weights are given by recipe; --only runs one row, and what it builds on:

    python -m lpcam_jax chain configs/paper/voc12.py --data.root DIR --workdir runs/paper_voc12 --only irn_lpcam \
        --voc12.model.weights resnet50.pth --voc12_irn.model.weights resnet50.pth
    python -m lpcam_jax paper --table 2 --data voc12 --results runs/paper_voc12
"""

from lpcam_jax.chain.paper import stages_of
from lpcam_jax.chain.recipe import Chain


def get_chain() -> Chain:
    """The chain; all that networks learn from is made of train_aug, and scored on train."""
    return Chain(stages_of("voc12", "--split", "train_aug"))
