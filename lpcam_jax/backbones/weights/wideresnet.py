"""Files of a WideResNet-38: the names of psa, which SEAM, EDAM and MCTformer took over, are ours; and the authors'.

    ours                         the authors', in MXNet
    conv1a.weight                arg:conv1a_weight
    b2.conv_branch2a.weight      arg:res2a_branch2a_weight
    b2.bn_branch2a.weight        arg:bn2a_branch2a_gamma
    b2_1.bn_branch2b1.bias       arg:bn2b1_branch2b1_beta
    bn7.running_mean             aux:bn7_moving_mean

The authors' last layer, linear1000, is a head. MCTformer's segmentation network has one that is loaded:

    head.0, head.1               fc8_seg_conv1, fc8_seg_conv2
"""

import re
from pathlib import Path
from typing import Any

from .fill import Loaded, fill_with_head
from .names import Naming, Weights, read_weights

_STEM, _MODULES = "conv1a.weight", r"(b\d(_\d+)?|bn7)\.|(arg|aux):(res|bn|conv)"
_KINDS = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}
_KINDS_OF_NORMS = {ours: theirs for theirs, ours in _KINDS.items()}


class _MXNetNaming(Naming):
    """The names of the network's authors."""

    def __init__(self):
        super().__init__({}, caffe=False)

    def to_torchvision(self, name: str) -> str:
        """Our name of an entry; unknown names are kept."""
        match = re.fullmatch(
            r"(?:arg|aux):(?:(res|bn)(\d)(?:a|b(\d+))_(branch\w+?)|(conv1a|bn7))_(moving_\w+|[a-z]+)", name
        )
        if not match:
            return name
        layer, stage, number, branch, module, kind = match.groups()
        if layer:
            block = f"b{stage}_{number}" if number else f"b{stage}"
            module = f"{block}.{'bn' if layer == 'bn' else 'conv'}_{branch}"
        return f"{module}.{_KINDS.get(kind, kind)}"

    def from_torchvision(self, name: str) -> str:
        """The authors' name of one of our entries."""
        *block, module, kind = name.split(".")
        store = "aux" if kind.startswith("running") else "arg"
        kind = _KINDS_OF_NORMS[kind] if "bn" in module else kind
        if not block:
            return f"{store}:{module}_{kind}"
        stage, _, number = block[0].removeprefix("b").partition("_")
        layer, _, branch = module.partition("_")
        place = f"{stage}b{number}" if number else f"{stage}a"
        return f"{store}:{'bn' if layer == 'bn' else 'res'}{place}_{branch}_{kind}"


_NAMINGS = (Naming({"fc8_seg_conv1": "head.0", "fc8_seg_conv2": "head.1"}, caffe=False), _MXNetNaming())


def load_wideresnet38(path: str | Path, network: dict[str, Any]) -> Loaded:
    """Fill the backbone of a network from a file, and MCTformer's segmentation head if both have it.

    Args:
        path: as in `read_weight_file`. Other heads (`fc8`, `f8_3`, `linear1000`, ...) are skipped.
        network: "backbone", a `WideResNet38` as a nested dict of arrays or shapes, and the other parts of the model.

    Raises:
        UserError: as in `read_weights` and `fill_with_head`.
    """
    weights = read_weights(path, _NAMINGS, stem=_STEM, size=3)
    return fill_with_head(weights, network, modules=_MODULES, advice=_advice)


def _advice(weights: Weights, backbone: dict[str, Any]) -> str:
    stem, width = weights.array(_STEM), backbone["conv1a"]["kernel"].shape[-1]
    if stem is not None and stem.ndim == 4 and stem.shape[0] != width:
        return f"Its first convolution has {stem.shape[0]} outputs: use --model.width {stem.shape[0]}."
    return "Give a WideResNet-38 with psa's names (conv1a.weight, b2.bn_branch2a.weight, ...) or MXNet's."
