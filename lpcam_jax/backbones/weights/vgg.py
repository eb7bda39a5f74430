"""Files of a VGG-16: every code base has its own names for the thirteen convolutions.

    ours            torchvision, timm    psa, Caffe
    block1.conv1    features.0           conv1_1
    block1.conv2    features.2           conv1_2
    block2.conv1    features.5           conv2_1
    ...
    block5.conv3    features.28          conv5_3

A convolution's entries are `.weight` and `.bias`.
"""

from pathlib import Path
from typing import Any

from ..vgg import CONVOLUTIONS
from .fill import Loaded, fill_whole_backbone
from .names import Naming, Weights, read_weights

_PLACES = [(block, conv) for block, count in enumerate(CONVOLUTIONS, start=1) for conv in range(1, count + 1)]
_FEATURES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_NAMINGS = (
    Naming({}, caffe=False),
    Naming(
        {f"features.{index}": f"block{b}.conv{c}" for index, (b, c) in zip(_FEATURES, _PLACES, strict=True)},
        caffe=False,
    ),
    Naming({f"conv{b}_{c}": f"block{b}.conv{c}" for b, c in _PLACES}, caffe=True),
)
_STEM, _MODULES = "block1.conv1.weight", r"block\d|features\.|conv\d_\d"


def load_vgg16(path: str | Path, network: dict[str, Any]) -> Loaded:
    """Fill the backbone of a network from a file; all its other parts are new.

    Args:
        path: as in `read_weight_file`. Fully connected layers (`classifier.*`, `fc6.*`) are skipped.
        network: "backbone", a `VGG16` as a nested dict of arrays or shapes, and the other parts of the model.

    Raises:
        UserError: as in `read_weights` and `fill_whole_backbone`; or the file holds a VGG of another depth, or one with
            batch norm.
    """
    weights = read_weights(path, _NAMINGS, stem=_STEM, size=3)
    return fill_whole_backbone(weights, network, modules=_MODULES, advice=_advice)


def _advice(weights: Weights, backbone: dict[str, Any]) -> str:
    stem, width = weights.array(_STEM), backbone["block1"]["conv1"]["kernel"].shape[-1]
    if stem is None or stem.ndim != 4:
        return "Give a VGG-16 with the names of torchvision (features.0.weight) or Caffe (conv1_1.weight)."
    if any(name.endswith("running_mean") for name in weights.names):
        return "It has batch norm, here there is none: give a VGG-16 without."
    if stem.shape[0] != width:
        return f"Its first convolution has {stem.shape[0]} outputs: use --model.width {stem.shape[0]}."
    return "Give a VGG-16: another depth does not fit."
