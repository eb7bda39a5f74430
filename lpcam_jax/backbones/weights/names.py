"""What others call our parameters: torchvision's names for ours, and other code bases' names for torchvision's.

    ours                          torchvision                       deeplab-pytorch
    conv1 / kernel                conv1.weight                      layer1.conv1.conv.weight
    bn1 / scale, bias             bn1.weight, .bias                 layer1.conv1.bn.weight, .bias
    bn1 / mean, var               bn1.running_mean, _var            layer1.conv1.bn.running_mean, _var
    layer1 / 0 / conv1, 2, 3      layer1.0.conv1, 2, 3              layer2.block1.reduce, conv3x3, increase.conv
    layer1 / 0 / bn1, 2, 3        layer1.0.bn1, 2, 3                layer2.block1.reduce, conv3x3, increase.bn
    layer1 / 0 / downsample       layer1.0.downsample.0, .1         layer2.block1.shortcut.conv, .bn
    head / 0                      head.0 (it has no DeepLabV2)      aspp.c0

Sources: kazuto1011/deeplab-pytorch (its first files say `proj` and `aspp.stages` for `shortcut` and `aspp`), and
isht7/pytorch-deeplab-resnet, whose many descendants use torchvision's names, and `layer5.conv2d_list.0` for `head.0`.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...machine.errors import UserError
from .files import read_weight_file

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
    r"head/(\d)/kernel": (r"head.\1.weight",),
    r"head/(\d)/bias": (r"head.\1.bias",),
}
_HEAD_CONVOLUTIONS = range(4)
_STAGES = range(1, 5)
_MOST_BLOCKS, _MOST_SHOWN = 100, 6
_BRANCHES = {"reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3")}


def torchvision_names(path: tuple) -> list[str]:
    """The names that a parameter can have in a file with torchvision's names.

    Args:
        path: its keys in the nested dict, such as ("layer1", 0, "bn1", "scale").

    Returns:
        Torchvision's own name first; then those where batch norm is folded.
    """
    ours = "/".join(map(str, path))
    for end, theirs in _TABLE.items():
        if match := re.search(f"(?<![^/]){end}$", ours):
            return [ours[: match.start()].replace("/", ".") + match.expand(name) for name in theirs]
    raise KeyError(ours)


class Naming:
    """What a code base calls the modules.

    Args:
        modules: torchvision's name of each module that has another one here.
        caffe: whether its networks are Caffe's: stride on the first 1x1, BGR pictures that are not scaled.
    """

    def __init__(self, modules: dict[str, str], *, caffe: bool):
        self.modules, self.caffe = modules, caffe

    def to_torchvision(self, name: str) -> str:
        """Torchvision's name of an entry, `PREFIX.MODULE.KIND`; the prefix and names that are not here stay."""
        module, dot, kind = name.rpartition(".")
        prefix, rest = "", module
        while rest and rest not in self.modules:
            first, _, rest = rest.partition(".")
            prefix += f"{first}."
        return f"{prefix}{self.modules[rest]}{dot}{kind}" if rest else name

    def from_torchvision(self, name: str) -> str:
        """The other way round, without a prefix."""
        module, dot, kind = name.rpartition(".")
        return self._reversed.get(module, module) + dot + kind

    @cached_property
    def _reversed(self) -> dict[str, str]:
        return {torchvision: module for module, torchvision in self.modules.items()}


def _deeplab_pytorch(shortcut: str, head: str) -> Naming:
    branches = _BRANCHES | {shortcut: ("downsample.0", "downsample.1")}
    modules = {f"{head}.c{i}": f"head.{i}" for i in _HEAD_CONVOLUTIONS}
    modules |= {"layer1.conv1.conv": "conv1", "layer1.conv1.bn": "bn1"}
    for stage in _STAGES:
        for block in range(_MOST_BLOCKS):
            for branch, (conv, norm) in branches.items():
                theirs, ours = f"layer{stage + 1}.block{block + 1}.{branch}", f"layer{stage}.{block}"
                modules |= {f"{theirs}.conv": f"{ours}.{conv}", f"{theirs}.bn": f"{ours}.{norm}"}
    return Naming(modules, caffe=True)


_NAMINGS = (
    Naming({}, caffe=False),
    Naming({f"layer5.conv2d_list.{i}": f"head.{i}" for i in _HEAD_CONVOLUTIONS}, caffe=True),
    _deeplab_pytorch("shortcut", "aspp"),
    _deeplab_pytorch("proj", "aspp.stages"),
)


def _find_naming(names: Iterable[str]) -> Naming:
    """The naming that knows the most of these names by its own; torchvision's, where none does."""
    names = list(names)
    return max(_NAMINGS, key=lambda naming: sum(naming.to_torchvision(name) != name for name in names))


class Weights(NamedTuple):
    """The arrays of a file, and what they are to torchvision."""

    file: str
    """as the user named it"""
    arrays: dict[str, np.ndarray]
    """under the file's names"""
    prefix: str
    """what stands before the backbone's names, such as `module.`; mostly nothing"""
    naming: Naming
    """of the code base that the file is of"""
    names: dict[str, str]
    """of what has the prefix: torchvision's names, without it, and the file's"""

    def array(self, name: str) -> np.ndarray | None:
        """The entry that torchvision calls so, if the file has it."""
        return self.arrays[self.names[name]] if name in self.names else None

    def name(self, name: str) -> str:
        """What the file calls, or would call, the entry that torchvision calls so."""
        return self.names.get(name, self.prefix + self.naming.from_torchvision(name))

    @property
    def caffe(self) -> bool:
        """Whether the names are of networks that began as Caffe's: there the stride is on the first 1x1."""
        return self.naming.caffe or self.prefix.endswith("Scale.")


def read_weights(path: str | Path) -> Weights:
    """Read the arrays of a file and find the backbone among them: where the one 7x7 convolution `conv1.weight` is.

    Args:
        path: as `read_weight_file`.

    Returns:
        All arrays under the file's names, and torchvision's names for the backbone's.

    Raises:
        UserError: as `read_weight_file`; or there are several backbones, or two names for one entry.
    """
    arrays = read_weight_file(path)
    naming = _find_naming(arrays)
    translated = {name: naming.to_torchvision(name) for name in arrays}
    stems = {
        name: ours.removesuffix("conv1.weight")
        for name, ours in translated.items()
        if ours.endswith(".conv1.weight") and arrays[name].shape[2:] == (7, 7)
    }
    if "conv1.weight" in translated.values() or not stems:
        stems = {"": ""}
    if len(stems) > 1:
        raise UserError(
            f"{path} holds {len(stems)} backbones ({listed(list(stems))}); save the one you mean as a file."
        )
    (prefix,) = stems.values()
    names = {}
    for name, ours in translated.items():
        if ours.startswith(prefix) and (other := names.setdefault(ours.removeprefix(prefix), name)) != name:
            raise UserError(
                f"{path} holds {other} and {name}, two names for one entry; save the one you mean as a file."
            )
    return Weights(str(path), arrays, prefix, naming, names)


def listed(items: list[str], separator: str = ", ") -> str:
    """The first of them, and how many more."""
    more = [f"and {len(items) - _MOST_SHOWN} more"] if len(items) > _MOST_SHOWN else []
    return separator.join(items[:_MOST_SHOWN] + more)
