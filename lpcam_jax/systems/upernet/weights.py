"""Files of whole UperNets, under the names of mmsegmentation and transformers.

    ours                       mmsegmentation                     transformers
    head / windows / 0         decode_head.psp_modules.0.1        the same
    head / whole               decode_head.bottleneck             the same
    head / laterals / 0        decode_head.lateral_convs.0        the same
    head / smoothing / 0       decode_head.fpn_convs.0            the same
    head / fusion              decode_head.fpn_bottleneck         the same
      conv, bn                   conv, bn                           conv, batch_norm
    classifier                 decode_head.conv_seg               decode_head.classifier
    auxiliary                  auxiliary_head.convs.0             the same
    auxiliary_classifier       auxiliary_head.conv_seg            auxiliary_head.classifier

The backbone is read as its own `load` does it.
"""

from typing import Any

from ...backbones.weights.fill import Loaded, fill_tree
from ...backbones.weights.names import Naming, Weights, listed, read_weights
from ...machine.errors import UserError
from .config import UperNetConfig

_MODULES = {f"decode_head.psp_modules.{i}.1": f"head.windows.{i}" for i in range(4)}
_MODULES |= {"decode_head.bottleneck": "head.whole"}
_MODULES |= {f"decode_head.lateral_convs.{i}": f"head.laterals.{i}" for i in range(3)}
_MODULES |= {f"decode_head.fpn_convs.{i}": f"head.smoothing.{i}" for i in range(3)}
_MODULES |= {"decode_head.fpn_bottleneck": "head.fusion", "auxiliary_head.convs.0": "auxiliary"}
_FUSION, _AUXILIARY = "head.fusion.conv.weight", "auxiliary.conv.weight"


def load_upernet(config: UperNetConfig, network: dict[str, Any]) -> Loaded:
    """Fill a UperNet from the file of its config's `model.weights`: the backbone, and the heads if the file has any.

    Args:
        config: the network's.
        network: "backbone" and the heads, nested dicts of arrays or shapes: parameters and statistics together.

    Returns:
        "backbone" and the other parts that the file holds; classifiers of other classes are new.

    Raises:
        UserError: as in the backbone's `load`; or an entry of the head is missing, of another shape, or not finite.
    """
    loaded = config.model.load(config.model.weights, network)
    weights = read_weights(config.model.weights, _NAMINGS, stem=_FUSION, size=3)
    if _FUSION not in weights.names:
        return loaded
    new = {part: _misfit(weights, part, network[part]) for part in network if part != "backbone"}
    used, problems = set(), []
    parts = {part: fill_tree(network[part], (part,), weights, used, problems) for part, why in new.items() if not why}
    if problems:
        raise UserError(f"{weights.file} does not hold this head: {listed(problems, '; ')}. {_advice(weights)}")
    skipped = tuple(name for name in loaded.skipped if name not in used)
    backbones = {part: why for part, why in loaded.new.items() if part not in new}
    new = backbones | {part: why for part, why in new.items() if why}
    return Loaded(loaded.network | parts, loaded.loaded + len(used), skipped, new)


def _misfit(weights: Weights, part: str, tree: dict[str, Any]) -> str:
    """The reason why a part is new; "" if it is to be in the file."""
    if part.startswith("auxiliary") and _AUXILIARY not in weights.names:
        return "the file has none"
    bias = weights.array(f"{part}.bias")
    if bias is not None and len(bias) != len(tree["bias"]):
        return f"the file's has {len(bias)} classes, this one {len(tree['bias'])}"
    return ""


def _advice(weights: Weights) -> str:
    """The flags for the file's head."""
    auxiliary = weights.array(_AUXILIARY)
    flags = f"--head.width {len(weights.array(_FUSION))}"
    return f"Use {flags if auxiliary is None else f'{flags} --head.auxiliary-width {len(auxiliary)}'}."


def _naming(norm: str, classifier: str) -> Naming:
    modules = {f"decode_head.{classifier}": "classifier", f"auxiliary_head.{classifier}": "auxiliary_classifier"}
    for theirs, ours in _MODULES.items():
        modules |= {f"{theirs}.conv": f"{ours}.conv", f"{theirs}.{norm}": f"{ours}.bn"}
    return Naming(modules, caffe=False)


_NAMINGS = _naming("bn", "conv_seg"), _naming("batch_norm", "classifier")
