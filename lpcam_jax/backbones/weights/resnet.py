"""Files of a ResNet of bottlenecks: torchvision's names are ours; those of DeepLabs from Caffe are in `names`.

The names do not tell which convolution of a bottleneck has the stride, nor how pictures were preprocessed: only the
source of a file can. Networks that look like a ResNet and are another one are named, with what to give instead.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from ...machine.errors import UserError
from .fill import Loaded, fill_with_head, leaves, stored_shape
from .names import Weights, listed, read_weights, torchvision_names

_GIVE_PLAIN = "give the weights of a plain ResNet-50, -101 or -152, such as torchvision's"
_IN_BLOCKS = r"layer[1-4]\.\d+\."
_OF_BLOCKS = _IN_BLOCKS + r"((conv|bn)[123]|downsample(\.([012]|conv|bn))?)\.\w+$"
_KNOWN_NAMES = "torchvision's or deeplab-pytorch's names"


class Architecture(NamedTuple):
    """A ResNet of bottlenecks, as detected from the entries of a file.

    Attributes:
        blocks: number of blocks in each stage.
        width: of the first bottleneck.
        stem_width: outputs of the first convolution.
        folded: whether batch norm is folded into the convolutions.
        deeplab: whether the file's own classifier is a DeepLabV2 head.
        classes: outputs of the file's own classifier; None: it has none.
    """

    blocks: tuple[int, ...]
    width: int
    stem_width: int
    folded: bool
    deeplab: bool
    classes: int | None

    def __str__(self) -> str:
        blocks, depth = " ".join(map(str, self.blocks)), 3 * sum(self.blocks) + 2
        norm = "folded" if self.folded else "separate"
        head = f", DeepLabV2 head of {self.classes} classes" if self.deeplab else ""
        return f"ResNet-{depth} (blocks {blocks}, width {self.width}, stem {self.stem_width}), batch norm {norm}{head}"

    def flags(self) -> str:
        """The flags of train.py that select this network."""
        blocks = " ".join(map(str, self.blocks))
        return f"--model.blocks {blocks} --model.width {self.width} --model.stem-width {self.stem_width}"


def load_deeplab(path: str | Path, network: dict[str, Any]) -> Loaded:
    """Fill a network from a file: its backbone, and DeepLabV2's head if both have it.

    Args:
        path: as in `read_weight_file`.
        network: "backbone", a `ResNet` as a nested dict of arrays or shapes, and the other parts of the model, such as
            a `DeepLabV2`.

    Returns:
        "backbone"; and "head", if the network is a DeepLabV2 and the file holds four convolutions of the same shapes.
        All other parts are new and left out: `str()` lists them, and says why the head is new.

    Raises:
        UserError: as in `read_weights` and `fill_with_head`; the advice has the flags for the ResNet that the file does
            hold.
    """
    return fill_deeplab(read_weights(path), network)


def fill_deeplab(weights: Weights, network: dict[str, Any]) -> Loaded:
    """Like `load_deeplab`, for a file that has been read."""
    return fill_with_head(weights, network, modules=_IN_BLOCKS, advice=_advice)


def find_architecture(weights: Weights) -> Architecture:
    """Detect the architecture of a file's network.

    Args:
        weights: as returned by `read_weights`.

    Returns:
        Depth and widths, from the names and shapes of the convolutions.

    Raises:
        UserError: they are not a plain ResNet of bottlenecks with an expansion of 4; what differs is named, or the
            missing entries are listed.
    """
    if peculiarity := _peculiarity(weights):
        raise UserError(f"{weights.file} holds no plain ResNet of bottlenecks: {peculiarity}.")
    matches = [re.fullmatch(r"layer([1-4])\.(\d{1,2})\.conv1\.weight", name) for name in weights.names]
    stages = [int(match[1]) for match in matches if match]
    blocks = tuple(stages.count(stage) for stage in (1, 2, 3, 4))
    needed = ["conv1.weight"]
    for stage, count in enumerate(blocks, start=1):
        needed += [f"layer{stage}.{block}.conv{i}.weight" for block in range(max(count, 1)) for i in (1, 2, 3)]
    if missing := [weights.name(name) for name in needed if name not in weights.names]:
        raise UserError(
            f"{weights.file} holds no ResNet of bottlenecks (ResNet-50 or deeper) with {_KNOWN_NAMES}: among its "
            f"{len(weights.arrays)} entries ({', '.join(list(weights.arrays)[:3])}, ...) is no {listed(missing)}."
        )
    probes = ("conv1.weight", needed[1], needed[3])
    stem, first, last = (weights.array(name).shape for name in probes)
    if len(stem) != 4 or len(first) != 4 or 0 in stem + first or last != (4 * first[0], first[0], 1, 1):
        names = [weights.name(name) for name in probes]
        raise UserError(
            f"{weights.file} holds no plain ResNet of bottlenecks: {names[0]} has shape {stem}, {names[1]} {first}, "
            f"{names[2]} {last}; {_GIVE_PLAIN}."
        )
    head = weights.array("head.0.weight")
    deeplab = head is not None and head.shape[1:] == (32 * first[0], 3, 3)
    if not deeplab:
        linear = weights.array("fc.weight"), weights.arrays.get("fc.weight")
        head = next((array for array in linear if array is not None and array.ndim == 2), None)
    classes = None if head is None else head.shape[0]
    return Architecture(blocks, first[0], stem[0], "conv1.bias" in weights.names, deeplab, classes)


def _advice(weights: Weights, backbone: dict[str, Any]) -> str:
    """Advice about weights that do not fit, without a semicolon: those separate what does not fit."""
    if peculiarity := _peculiarity(weights):
        return f"{peculiarity[0].upper()}{peculiarity[1:]}."
    try:
        architecture = find_architecture(weights)
    except UserError:
        return f"Give the weights of a ResNet of bottlenecks with {_KNOWN_NAMES}."
    blocks = tuple(len(backbone[f"layer{stage}"]) for stage in (1, 2, 3, 4))
    first, *_ = backbone["layer1"].values()
    width, stem_width = (module["conv1"]["kernel"].shape[-1] for module in (first, backbone))
    if architecture[:3] != (blocks, width, stem_width):
        return f"It holds a {architecture}: use {architecture.flags()}."
    convolutions = {
        torchvision_names(path)[0]: stored_shape(leaf.shape) for path, leaf in leaves(backbone, ()) if leaf.ndim == 4
    }
    arrays = ((weights.array(name), shape) for name, shape in convolutions.items())
    if all(array is not None and array.shape == shape for array, shape in arrays):
        return "Its convolutions are those of this backbone: export its whole state dict again."
    return f"Its convolutions are not those of this backbone: {_GIVE_PLAIN}."


def _peculiarity(weights: Weights) -> str:
    """What makes the network of a file another one than a plain ResNet of bottlenecks, and what to give; "" if nothing.

    It is looked for under torchvision's names and those of timm and of OpenMMLab, with any prefix.
    """

    def shape(module: str) -> tuple[int, ...]:
        ends = (name for name in weights.names if re.search(rf"(^|\.){module}\.weight$", name))
        return next((weights.array(name).shape for name in ends if weights.array(name).ndim == 4), ())

    if not shape("layer1\\.0\\.conv1"):
        return ""  # no ResNet of any kind
    stem, middle, last = shape("(?<!\\d\\.)conv1"), shape("layer1\\.0\\.conv2"), shape("layer1\\.0\\.conv3")
    stacked = next((name for name in ("conv1\\.3", "stem\\.3", "(?<!\\d\\.)conv3") if shape(name)), "")
    inside = [name for name in weights.names if re.search(_IN_BLOCKS, name) and not re.search(_OF_BLOCKS, name)]
    if middle and not any(re.search(r"\.(conv|bn)3\.", name) for name in weights.names):
        return f"it has blocks of two convolutions (ResNet-18 or -34), here they have three: {_GIVE_PLAIN}"
    if stacked:
        return f"its stem is three 3x3 convolutions (ResNet-C or -D), here it is one of 7x7: {_GIVE_PLAIN}"
    if stem and stem[1] == 1:
        return (
            "its first convolution takes 1 channel (grey), here it takes 3 (RGB): give weights for RGB pictures, or "
            f"store {weights.name('conv1.weight')} as weight.repeat(1, 3, 1, 1) / 3"
        )
    if stem and stem[1] != 3:
        return f"its first convolution takes {stem[1]} channels, here it takes 3 (RGB): give weights for RGB pictures"
    if stem and stem[2:] == (3, 3):
        return f"its first convolution is 3x3 (for small pictures), here it is 7x7: {_GIVE_PLAIN}"
    if len(middle) == 4 and middle[1] and middle[0] == middle[1] * (middle[0] // middle[1]) and middle[0] != middle[1]:
        return (
            f"its 3x3 convolutions have {middle[0] // middle[1]} groups (ResNeXt), here they have none: {_GIVE_PLAIN}"
        )
    if len(last) == 4 and last[0] in (last[1], 2 * last[1]):
        return f"its bottlenecks are wide ({last[1]} of {last[0]} channels, here a quarter): {_GIVE_PLAIN}"
    if inside:
        return f"its blocks hold more than convolutions and norms ({listed(inside)}): {_GIVE_PLAIN}"
    return ""
