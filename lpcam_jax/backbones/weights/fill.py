"""Pretrained networks from torch: each parameter is filled from exactly one entry of a file.

Backbones have torchvision's names, or those of a code base that `weight_names` knows; convolutions are OIHW there and
HWIO here. A file with batch norm folded into the convolutions has `conv1.bias` instead of `bn1.*`; the equivalent batch
norm has scale 1, shift = bias, mean 0 and variance 1 - epsilon. The names do not tell which convolution of a bottleneck
has the stride, nor how pictures were preprocessed: only the source of a file can.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...machine.errors import UserError
from .names import Weights, listed, read_weights, torchvision_names

_FOLDED = {"scale": np.float32(1), "mean": np.float32(0), "var": np.float32(1) - np.float32(1e-5)}
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


class Loaded(NamedTuple):
    """A network filled from a file.

    Attributes:
        network: the parts that the file holds, "backbone" and maybe "head": nested like the network's, NumPy float32.
        loaded: number of entries of the file that were used.
        skipped: names of the other entries.
        new: the other parts of the network -> why they are not in the file, or "" for parts that never are.
    """

    network: dict[str, Any]
    loaded: int
    skipped: tuple[str, ...]
    new: dict[str, str]

    @property
    def backbone(self) -> dict[str, Any]:
        """The backbone, which every file holds."""
        return self.network["backbone"]

    def __str__(self) -> str:
        named = [name for name in self.skipped if not name.endswith("num_batches_tracked")]
        counters = len(self.skipped) - len(named)
        details = [listed(named)] * bool(named) + [f"{counters} num_batches_tracked"] * bool(counters)
        skipped = f"{len(self.skipped)} skipped" + (f" ({', '.join(details)})" if details else "")
        parts = [f"{part} loaded" for part in self.network if part != "backbone"]
        parts += [f"{part} new: {why}" for part, why in self.new.items() if why]
        if always_new := [part for part, why in self.new.items() if not why]:
            parts.append(f"{len(always_new)} new ({', '.join(always_new)})")
        return ", ".join([f"{self.loaded} entries loaded", skipped, *parts])


def load_backbone(path: str | Path, backbone: dict[str, Any]) -> Loaded:
    """Fill a classifier's backbone from a file; its head is new.

    Args:
        path: as in `read_weight_file`. Entries that are not the backbone's (`fc.*`) are skipped.
        backbone: the backbone as a nested dict of arrays or `jax.ShapeDtypeStruct`s: parameters and statistics
            together, keyed as its modules are.

    Returns:
        A nested dict of the same structure, NumPy float32, and the entries that were loaded and skipped.

    Raises:
        UserError: as in `read_weights`; or an entry is missing, duplicate, of another shape, not finite, or a negative
            variance: all such entries are listed, with the flags for the network that the file does hold.
    """
    return fill_backbone(read_weights(path), backbone)


def load_deeplab(path: str | Path, network: dict[str, Any]) -> Loaded:
    """Fill a network from a file: its backbone, and DeepLabV2's head if both have it.

    Args:
        path: as in `read_weight_file`.
        network: "backbone" as in `load_backbone`, and the other parts of the model, such as a `DeepLabV2`.

    Returns:
        "backbone"; and "head", if the network is a DeepLabV2 and the file holds four convolutions of the same shapes.
        All other parts are new and left out: `str()` lists them, and says why the head is new.

    Raises:
        UserError: as in `load_backbone`; or a head of the right shapes holds values that are not finite.
    """
    return fill_deeplab(read_weights(path), network)


def fill_backbone(weights: Weights, backbone: dict[str, Any]) -> Loaded:
    """Like `load_backbone`, for a file that has been read."""
    return _filled(weights, {"backbone": backbone}, {"head": ""}, _IN_BLOCKS, _resnet_advice)


def fill_whole_backbone(
    weights: Weights, network: dict[str, Any], *, modules: str, advice: Callable[[Weights, dict[str, Any]], str]
) -> Loaded:
    """Fill a backbone of any kind from a file; the other parts of its network are new.

    Args:
        weights: as returned by `read_weights`.
        network: "backbone" as in `load_backbone`, and the other parts of the model.
        modules: pattern of the names of entries that the backbone must have a place for.
        advice: (weights, backbone) -> a sentence about weights that do not fit, without a semicolon.

    Raises:
        UserError: as in `load_backbone`.
    """
    new = {part: "" for part in network if part != "backbone"}
    return _filled(weights, {"backbone": network["backbone"]}, new, modules, advice)


def fill_deeplab(weights: Weights, network: dict[str, Any]) -> Loaded:
    """Like `load_deeplab`, for a file that has been read."""
    return fill_with_head(weights, network, modules=_IN_BLOCKS, advice=_resnet_advice)


def fill_with_head(
    weights: Weights, network: dict[str, Any], *, modules: str, advice: Callable[[Weights, dict[str, Any]], str]
) -> Loaded:
    """Like `fill_whole_backbone`, and a head that is a list of convolutions, if the file has one of the same shapes."""
    parts, new = {"backbone": network["backbone"]}, {part: "" for part in network if part != "backbone"}
    if isinstance(network.get("head"), dict):  # a classifier's head is an array, and always new
        new["head"] = _misfit(weights, network["head"])
        if not new["head"]:
            del new["head"]
            parts["head"] = network["head"]
    return _filled(weights, parts, new, modules, advice)


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


def torchvision_arrays(network: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a network under torchvision's names.

    Args:
        network: "backbone", and DeepLabV2's "head" if there is one: nested dicts of arrays, convolutions HWIO.

    Returns:
        The arrays by name, convolutions OIHW; the head's are `head.0.weight`, `head.0.bias` and so on.
    """
    return {
        torchvision_names(path)[0]: np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        for part, tree in network.items()
        for path, array in _leaves(tree, _start(part))
    }


def _start(part: str) -> tuple:
    """The prefix of a part's names: the backbone's have none."""
    return () if part == "backbone" else (part,)


def _filled(
    weights: Weights,
    parts: dict[str, Any],
    new: dict[str, str],
    modules: str,
    advice: Callable[[Weights, dict[str, Any]], str],
) -> Loaded:
    """Fill parts from the file, which must hold all of them; the other arguments as in `fill_whole_backbone`."""
    used, problems = set(), []
    filled = {part: fill_tree(tree, _start(part), weights, used, problems) for part, tree in parts.items()}
    if not problems and (unknown := _without_place(weights, used, modules)):
        problems = [f"it has no place for {listed(unknown)}"]
    if problems:
        problems, hint = listed(problems, "; "), advice(weights, parts["backbone"])
        raise UserError(f"{weights.file} does not hold this {' and '.join(parts)}: {problems}. {hint}")
    return Loaded(filled, len(used), tuple(name for name in weights.arrays if name not in used), new)


def _misfit(weights: Weights, head: dict[int, Any]) -> str:
    """The reason why a head's convolutions cannot be filled from a file; "" if they can."""
    shapes = {torchvision_names(path)[0]: _stored(leaf.shape) for path, leaf in _leaves(head, _start("head"))}
    if not shapes.keys() & weights.names.keys():
        return "the file has none"
    if missing := [weights.name(name) for name in shapes if name not in weights.names]:
        return f"the file lacks {listed(missing)}"
    for name, shape in shapes.items():
        file_shape = weights.array(name).shape
        if file_shape != shape:
            if len(file_shape) == len(shape) and file_shape[1:] == shape[1:]:
                return f"the file's has {file_shape[0]} classes, this one {shape[0]}"
            return f"{weights.name(name)} has shape {file_shape}, not {shape}"
    return ""


def _leaves(tree: Any, path: tuple) -> Iterator[tuple[tuple, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def fill_tree(tree: Any, path: tuple, weights: Weights, used: set[str], problems: list[str]) -> Any:
    """Fill a nested dict from a file.

    Args:
        tree: arrays or shapes.
        path: keys before the dict's own: with them its entries have torchvision's names, see `torchvision_names`.
        weights: as returned by `read_weights`.
        used: the file's names of the entries that are used are added to it.
        problems: what is missing, duplicate, of another shape or not finite is added to it.

    Returns:
        The values, nested likewise, NumPy float32; of what has a problem, what is in `tree`.
    """
    if isinstance(tree, dict):
        return {key: fill_tree(value, (*path, key), weights, used, problems) for key, value in tree.items()}
    names, shape = torchvision_names(path), _stored(tree.shape)
    present = [name for name in names if name in weights.names]
    if not present:
        problems.append(f"{weights.name(names[0])} is missing")
        return tree
    name, *duplicates = map(weights.name, present)
    used.update([name, *duplicates])
    if duplicates:
        problems.append(f"{' and '.join([name, *duplicates])} are both {'/'.join(map(str, path))}")
        return tree
    array = weights.arrays[name]
    if path[-1] in _FOLDED and present != names[:1]:
        array = np.broadcast_to(_FOLDED[path[-1]], array.shape)
    values = float32_of(name, array, shape, problems)
    if values is None:
        return tree
    if path[-1] == "var" and (values < 0).any():
        problems.append(f"{name} holds a negative variance")
    return values.transpose(2, 3, 1, 0) if values.ndim == 4 else values


def float32_of(name: str, array: np.ndarray, shape: tuple[int, ...], problems: list[str]) -> np.ndarray | None:
    """An entry as finite float32 numbers of this shape; None if it holds none, and `problems` then says why."""
    if array.shape != shape:
        problems.append(f"{name} has shape {array.shape}, not {shape}")
        return None
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        problems.append(f"{name} holds {array.dtype} instead of numbers")
        return None
    with np.errstate(over="ignore"):
        values = np.array(array, np.float32)  # an aligned copy, so that the file's data can be freed
    if not np.isfinite(values).all():
        problems.append(f"{name} holds values that are not finite")
        return None
    return values


def _stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a file: a convolution's is OIHW."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _resnet_advice(weights: Weights, backbone: dict[str, Any]) -> str:
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
        torchvision_names(path)[0]: _stored(leaf.shape) for path, leaf in _leaves(backbone, ()) if leaf.ndim == 4
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


def _without_place(weights: Weights, used: set[str], modules: str) -> list[str]:
    """The entries of modules that a backbone does not have: without them, it is another network than the file's."""
    return [
        name
        for ours, name in weights.names.items()
        if name not in used and re.match(modules, ours) and not ours.endswith("num_batches_tracked")
    ]
