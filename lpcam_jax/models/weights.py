"""Pretrained backbones from the torch world: one table of names, exactly one file entry a parameter.

    conv1.weight                  conv1 / kernel           OIHW -> HWIO
    bn1.weight, .bias             bn1 / scale, bias
    bn1.running_mean, _var        bn1 / mean, var
    layer1.0.downsample.0, .1     layer1 / 0 / downsample / conv, bn

A file with batch norm folded into the convolutions has `conv1.bias` instead of `bn1.*`: the same network is a batch
norm with scale 1, shift = bias, mean 0 and variance 1 - epsilon. Both places of a bottleneck's stride have the same
names: which one a file was trained with, and on which pixels, only its source can tell.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .weight_files import read_weight_file

# Ours: torchvision's, and what stands for it where batch norm is folded or a shortcut's convolution is alone.
_TABLE = {
    r"conv(\d)/kernel": (r"conv\1.weight",),
    r"bn(\d)/scale": (r"bn\1.weight", r"conv\1.bias"),
    r"bn(\d)/bias": (r"bn\1.bias", r"conv\1.bias"),
    r"bn(\d)/mean": (r"bn\1.running_mean", r"conv\1.bias"),
    r"bn(\d)/var": (r"bn\1.running_var", r"conv\1.bias"),
    r"downsample/conv/kernel": (r"downsample.0.weight", r"downsample.weight"),
    r"downsample/bn/scale": (r"downsample.1.weight", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/bias": (r"downsample.1.bias", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/mean": (r"downsample.1.running_mean", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/var": (r"downsample.1.running_var", r"downsample.0.bias", r"downsample.bias"),
}
_FOLDED = {"scale": np.float32(1), "mean": np.float32(0), "var": np.float32(1) - np.float32(1e-5)}
_MOST_SHOWN = 6


class Weights(NamedTuple):
    """The arrays of a file."""

    file: str
    """as the user named it"""
    prefix: str
    """what stands before the backbone's names, such as `module.`; mostly nothing"""
    arrays: dict[str, np.ndarray]
    """under the file's names"""

    def backbone(self) -> dict[str, np.ndarray]:
        """The arrays that have the prefix, without it."""
        start = len(self.prefix)
        return {name[start:]: array for name, array in self.arrays.items() if name.startswith(self.prefix)}


class Architecture(NamedTuple):
    """A ResNet of bottlenecks, as the entries of a file tell it."""

    blocks: tuple[int, ...]
    width: int
    stem_width: int
    folded: bool
    """whether batch norm is folded into the convolutions"""
    classes: int | None
    """outputs of the file's own classifier; None: it has none"""

    def __str__(self) -> str:
        blocks, depth = " ".join(map(str, self.blocks)), 3 * sum(self.blocks) + 2
        norm = "folded" if self.folded else "separate"
        return f"ResNet-{depth} (blocks {blocks}, width {self.width}, stem {self.stem_width}), batch norm {norm}"

    def flags(self) -> str:
        """The flags of train.py for this network."""
        blocks = " ".join(map(str, self.blocks))
        return f"--model.blocks {blocks} --model.width {self.width} --model.stem-width {self.stem_width}"


class Loaded(NamedTuple):
    """A backbone filled from a file, and what became of the file's entries."""

    backbone: dict[str, Any]
    """nested as the backbone is, NumPy float32"""
    loaded: int
    """how many entries of the file are in it"""
    skipped: tuple[str, ...]
    """the other entries"""

    def __str__(self) -> str:
        named = [name for name in self.skipped if not name.endswith("num_batches_tracked")]
        counters = len(self.skipped) - len(named)
        shown = [_listed(named)] * bool(named) + [f"{counters} num_batches_tracked"] * bool(counters)
        skipped = f"{len(self.skipped)} skipped" + (f" ({', '.join(shown)})" if shown else "")
        return f"{self.loaded} entries loaded, {skipped}, 1 new (head)"


def load_backbone(path: str | Path, backbone: dict[str, Any]) -> Loaded:
    """Fill a backbone from a file with torchvision's names.

    Args:
        path: as `read_weight_file`. Entries that are not the backbone's (`fc.*`) are left out.
        backbone: the backbone as a nested dict of arrays or `jax.ShapeDtypeStruct`s: parameters and statistics
            together, keyed as its modules are.

    Returns:
        A nested dict of the same structure, NumPy float32, and what was loaded and skipped.

    Raises:
        UserError: as `read_weights`; or an entry is missing, there twice, of another shape, not finite, or a negative
            variance: all are listed, with the flags for the network that the file does hold.
    """
    return fill_backbone(read_weights(path), backbone)


def read_weights(path: str | Path) -> Weights:
    """Read the arrays of a file and find the backbone among them: where the one 7x7 convolution `conv1.weight` is.

    Args:
        path: as `read_weight_file`.

    Returns:
        All arrays under the file's names, and the prefix of the backbone's.

    Raises:
        UserError: as `read_weight_file`; or there are several backbones.
    """
    arrays = read_weight_file(path)
    prefixes = [
        name.removesuffix("conv1.weight")
        for name, array in arrays.items()
        if name.endswith(".conv1.weight") and array.shape[2:] == (7, 7)
    ]
    if "conv1.weight" in arrays or not prefixes:
        prefixes = [""]
    if len(prefixes) > 1:
        found = _listed([f"{prefix}conv1.weight" for prefix in prefixes])
        raise UserError(f"{path} holds {len(prefixes)} backbones ({found}); save the one you mean as a file.")
    return Weights(str(path), prefixes[0], arrays)


def fill_backbone(weights: Weights, backbone: dict[str, Any]) -> Loaded:
    """As `load_backbone`, for a file that was read."""
    entries, used, problems = weights.backbone(), set(), []
    tree = _fill(backbone, (), entries, used, problems)
    if problems:
        problems = _listed(problems, "; ")
        raise UserError(f"{weights.file} does not hold this backbone: {problems}. {_advice(weights, backbone)}")
    used = {weights.prefix + name for name in used}
    return Loaded(tree, len(used), tuple(name for name in weights.arrays if name not in used))


def find_architecture(weights: Weights) -> Architecture:
    """What network the entries of a file are of.

    Args:
        weights: as `read_weights` returns them.

    Returns:
        Depth and widths, as far as the names and shapes of the convolutions tell them.

    Raises:
        UserError: they are no ResNet of bottlenecks of four times their width; what is missing is listed.
    """
    entries = weights.backbone()
    places = [re.fullmatch(r"layer([1-4])\.(\d{1,2})\.conv1\.weight", name) for name in entries]
    found = [int(place[1]) for place in places if place]
    blocks = tuple(found.count(stage) for stage in (1, 2, 3, 4))
    needed = ["conv1.weight"]
    for stage, count in enumerate(blocks, start=1):
        needed += [f"layer{stage}.{block}.conv{i}.weight" for block in range(max(count, 1)) for i in (1, 2, 3)]
    if missing := [name for name in needed if name not in entries]:
        raise UserError(
            f"{weights.file} holds no ResNet of bottlenecks (ResNet-50 or deeper) with torchvision's names: among its "
            f"{len(weights.arrays)} entries ({', '.join(list(weights.arrays)[:3])}, ...) is no {_listed(missing)}."
        )
    stem, first, last = (entries[name].shape for name in ("conv1.weight", needed[1], needed[3]))
    if len(stem) != 4 or len(first) != 4 or 0 in stem + first or last != (4 * first[0], first[0], 1, 1):
        raise UserError(
            f"{weights.file} holds no plain ResNet of bottlenecks: conv1.weight has shape {stem}, {needed[1]} {first}, "
            f"{needed[3]} {last}; give a file without wide or grouped bottlenecks."
        )
    head = entries.get("fc.weight", weights.arrays.get("fc.weight"))
    classes = head.shape[0] if head is not None and head.ndim == 2 else None
    return Architecture(blocks, first[0], stem[0], "conv1.bias" in entries, classes)


def torchvision_arrays(backbone: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a backbone under torchvision's names.

    Args:
        backbone: nested dict of arrays, convolutions HWIO.

    Returns:
        The same arrays by name, convolutions OIHW.
    """
    return {
        _names(path)[0]: np.ascontiguousarray(array.transpose(3, 2, 0, 1) if array.ndim == 4 else array)
        for path, array in _leaves(backbone, ())
    }


def _leaves(tree: Any, path: tuple) -> Iterator[tuple[tuple, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    else:
        yield path, tree


def _names(path: tuple) -> list[str]:
    """The names that a parameter can have in a file; torchvision's first."""
    ours = "/".join(map(str, path))
    for end, theirs in _TABLE.items():
        if match := re.search(f"(?<![^/]){end}$", ours):
            return [ours[: match.start()].replace("/", ".") + match.expand(name) for name in theirs]
    raise KeyError(ours)


def _fill(tree: Any, path: tuple, entries: dict[str, np.ndarray], used: set[str], problems: list[str]) -> Any:
    if isinstance(tree, dict):
        return {key: _fill(value, (*path, key), entries, used, problems) for key, value in tree.items()}
    name, names = "/".join(map(str, path)), _names(path)
    found = [one for one in names if one in entries]
    used.update(found)
    if not found:
        problems.append(f"{name} is missing")
        return tree
    if len(found) > 1:
        problems.append(f"{' and '.join(found)} are both {name}")
        return tree
    array = entries[found[0]]
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    if path[-1] in _FOLDED and found != names[:1]:
        array = np.broadcast_to(_FOLDED[path[-1]], array.shape)
    if array.shape != tuple(tree.shape):
        problems.append(f"{name} has shape {array.shape}, not {tuple(tree.shape)}")
        return tree
    if array.dtype.kind not in "fiu" and array.dtype.name != "bfloat16":
        problems.append(f"{name} holds {array.dtype} instead of numbers")
        return tree
    with np.errstate(over="ignore"):
        values = np.array(array, np.float32)  # a copy: aligned, and nothing of the file's stays in memory
    if not np.isfinite(values).all():
        problems.append(f"{name} holds values that are not finite")
    elif path[-1] == "var" and (values < 0).any():
        problems.append(f"{name} holds a negative variance")
    return values


def _advice(weights: Weights, backbone: dict[str, Any]) -> str:
    """What to do about weights that do not fit."""
    try:
        found = find_architecture(weights)
    except UserError:
        return "Give the weights of a ResNet of bottlenecks with torchvision's names."
    blocks = tuple(len(backbone[f"layer{stage}"]) for stage in (1, 2, 3, 4))
    first, *_ = backbone["layer1"].values()
    width, stem_width = (module["conv1"]["kernel"].shape[-1] for module in (first, backbone))
    if found[:3] == (blocks, width, stem_width):
        return "Its convolutions are those of this backbone: export its whole state dict again."
    return f"It holds a {found}: use {found.flags()}."


def _listed(items: list[str], separator: str = ", ") -> str:
    more = [f"and {len(items) - _MOST_SHOWN} more"] if len(items) > _MOST_SHOWN else []
    return separator.join(items[:_MOST_SHOWN] + more)
