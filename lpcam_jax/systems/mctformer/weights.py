"""Files of MCTformers, and of the vision transformers that they start from, under timm's names.

    ours                    MCTformer                             DeiT
    embedding / tokens      cls_token (1, c, d) and the first     cls_token (1, 1, d) and the first row of pos_embed,
                            c rows of pos_embed (1, c + n, d)     c times
    head / kernel           head.weight (c, d, 3, 3)              new; its own head is skipped
    everything else         as in `backbones.weights.vit`; the norm after the blocks is skipped

A token is stored here with its position added.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...backbones.weights.fill import Loaded
from ...backbones.weights.vit import ViTFile
from ...machine.errors import UserError
from .config import MCTformerModel


def load_mctformer(path: str | Path, network: dict[str, Any], config: MCTformerModel) -> Loaded:
    """Fill an MCTformer from a file: of one with as many classes, or of a vision transformer with one class token.

    Args:
        path: as in `read_weight_file`.
        network: "backbone" and, in V2, "head", nested dicts of arrays or shapes.
        config: the network's.

    Raises:
        UserError: as in `backbones.weights.vit.load_vit`; or the file has tokens of other classes.
    """
    file, (classes, _) = ViTFile(path), network["backbone"]["embedding"]["tokens"].shape
    found = file.count("cls_token")
    if "dist_token" in file.names:
        raise UserError(f"{path} holds a distilled transformer, which has another token than that of the class.")
    if found not in (1, classes):
        raise UserError(
            f"{path} holds {found} class tokens, the data set has {classes} classes; give a file of as many, or one of "
            "a DeiT, whose token all classes start with."
        )
    backbone = file.backbone(replace(config, tokens=found, final_norm=False))
    if found == 1:
        tokens = np.repeat(backbone["embedding"]["tokens"], classes, axis=0)
        backbone["embedding"] = backbone["embedding"] | {"tokens": tokens}
    parts, new = {"backbone": backbone}, {}
    if "head" in network:
        if len(file.shape("head.weight")) == 4:
            kernel = file.read("head.weight", classes, config.dim, 3, 3).transpose(2, 3, 1, 0)
            parts["head"] = {"kernel": kernel, "bias": file.read("head.bias", classes)}
        else:
            new["head"] = ""
    return file.loaded(parts, new)
