"""Names of parameters: torchvision's names for ours, and other code bases' names for torchvision's.

Of a backbone whose modules have other names than torchvision's (`weights/vgg.py`), ours take their place.

    ours                          torchvision                       deeplab-pytorch
    conv1 / kernel                conv1.weight                      layer1.conv1.conv.weight
    bn1 / scale, bias             bn1.weight, .bias                 layer1.conv1.bn.weight, .bias
    bn1 / mean, var               bn1.running_mean, _var            layer1.conv1.bn.running_mean, _var
    layer1 / 0 / conv1, 2, 3      layer1.0.conv1, 2, 3              layer2.block1.reduce, conv3x3, increase.conv
    layer1 / 0 / bn1, 2, 3        layer1.0.bn1, 2, 3                layer2.block1.reduce, conv3x3, increase.bn
    layer1 / 0 / downsample       layer1.0.downsample.0, .1         layer2.block1.shortcut.conv, .bn
    head / 0                      head.0 (it has no DeepLabV2)      aspp.c0

Sources: kazuto1011/deeplab-pytorch (its early files have `proj` and `aspp.stages` instead of `shortcut` and `aspp`),
and isht7/pytorch-deeplab-resnet, whose many descendants use torchvision's names, with `layer5.conv2d_list.0` for
`head.0`.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ...machine.errors import UserError
from .files import read_weight_file

# Ours: torchvision's, then its replacement if batch norm is folded, or a shortcut is a single convolution. The last
# five are for all other modules.
_TABLE = {
    r"bn(\d)/scale": (r"bn\1.weight", r"conv\1.bias"),
    r"bn(\d)/bias": (r"bn\1.bias", r"conv\1.bias"),
    r"bn(\d)/mean": (r"bn\1.running_mean", r"conv\1.bias"),
    r"bn(\d)/var": (r"bn\1.running_var", r"conv\1.bias"),
    r"downsample/conv/kernel": (r"downsample.0.weight", r"downsample.weight"),
    r"downsample/bn/scale": (r"downsample.1.weight", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/bias": (r"downsample.1.bias", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/mean": (r"downsample.1.running_mean", r"downsample.0.bias", r"downsample.bias"),
    r"downsample/bn/var": (r"downsample.1.running_var", r"downsample.0.bias", r"downsample.bias"),
    r"(\w+)/kernel": (r"\1.weight",),
    r"(\w+)/scale": (r"\1.weight",),
    r"(\w+)/bias": (r"\1.bias",),
    r"(\w+)/mean": (r"\1.running_mean",),
    r"(\w+)/var": (r"\1.running_var",),
}
_HEAD_CONVOLUTIONS = range(4)
_STAGES = range(1, 5)
_MAX_BLOCKS, _MAX_LISTED = 100, 6
_BRANCHES = {"reduce": ("conv1", "bn1"), "conv3x3": ("conv2", "bn2"), "increase": ("conv3", "bn3")}


def torchvision_names(path: tuple) -> list[str]:
    """The names that a parameter can have in a file with torchvision's names.

    Args:
        path: its keys in the nested dict, such as ("layer1", 0, "bn1", "scale").

    Returns:
        Torchvision's own name first; then those used if batch norm is folded.
    """
    ours = "/".join(map(str, path))
    for end, theirs in _TABLE.items():
        if match := re.search(f"(?<![^/]){end}$", ours):
            return [ours[: match.start()].replace("/", ".") + match.expand(name) for name in theirs]
    raise KeyError(ours)


class Naming:
    """The names of modules in a code base.

    Args:
        modules: its name -> torchvision's name, for each module whose names differ.
        caffe: whether its networks follow Caffe: stride on the first 1x1 convolution, BGR pictures in [0, 255].
    """

    def __init__(self, modules: dict[str, str], *, caffe: bool):
        self.modules, self.caffe = modules, caffe

    def to_torchvision(self, name: str) -> str:
        """Torchvision's name of an entry, `PREFIX.MODULE.KIND`; the prefix and unknown names are kept."""
        module, dot, kind = name.rpartition(".")
        prefix, rest = "", module
        while rest and rest not in self.modules:
            first, _, rest = rest.partition(".")
            prefix += f"{first}."
        return f"{prefix}{self.modules[rest]}{dot}{kind}" if rest else name

    def from_torchvision(self, name: str) -> str:
        """The name of torchvision's entry in this code base, without a prefix."""
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
        for block in range(_MAX_BLOCKS):
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


def _find_naming(names: Iterable[str], namings: Sequence[Naming]) -> Naming:
    """The naming that translates the most of these names; the first if none does."""
    names = list(names)
    return max(namings, key=lambda naming: sum(naming.to_torchvision(name) != name for name in names))


class Weights(NamedTuple):
    """The arrays of a file, and their names in torchvision.

    Attributes:
        file: path, as given by the user.
        arrays: arrays by the file's names.
        prefix: the prefix of the backbone's names, such as `module.`; usually empty.
        naming: of the code base that the file comes from.
        names: torchvision's name, without the prefix, -> the file's name, for entries with the prefix.
    """

    file: str
    arrays: dict[str, np.ndarray]
    prefix: str
    naming: Naming
    names: dict[str, str]

    def array(self, name: str) -> np.ndarray | None:
        """The entry with this name in torchvision, if the file has it."""
        return self.arrays[self.names[name]] if name in self.names else None

    def name(self, name: str) -> str:
        """The file's name, real or hypothetical, for the entry with this name in torchvision."""
        return self.names.get(name, self.prefix + self.naming.from_torchvision(name))

    @property
    def caffe(self) -> bool:
        """Whether the names are those of networks derived from Caffe, with the stride on the first 1x1 convolution."""
        return self.naming.caffe or self.prefix.endswith("Scale.")


def read_weights(
    path: str | Path, namings: Sequence[Naming] = _NAMINGS, *, stem: str = "conv1.weight", size: int = 7
) -> Weights:
    """Read the arrays of a file, and find the backbone among them by its first convolution.

    Args:
        path: as in `read_weight_file`.
        namings: of the code bases that may have made it; by default those of ResNets.
        stem: name of the first convolution, in the names that the namings translate to.
        size: its height and width.

    Returns:
        All arrays under the file's names, and the translated names of the backbone's.

    Raises:
        UserError: as in `read_weight_file`; or there are several backbones, or two names for one entry.
    """
    arrays = read_weight_file(path)
    naming = _find_naming(arrays, namings)
    translated = {name: naming.to_torchvision(name) for name in arrays}
    stems = {
        name: ours.removesuffix(stem)
        for name, ours in translated.items()
        if ours.endswith(f".{stem}") and arrays[name].shape[2:] == (size, size)
    }
    if stem in translated.values() or not stems:
        stems = {"": ""}
    if len(stems) > 1:
        raise UserError(
            f"{path} holds {len(stems)} backbones ({listed(list(stems))}); save the one you need as a file."
        )
    (prefix,) = stems.values()
    names = {}
    for name, ours in translated.items():
        if ours.startswith(prefix) and (other := names.setdefault(ours.removeprefix(prefix), name)) != name:
            raise UserError(
                f"{path} holds {other} and {name}, two names for one entry; save the one you need as a file."
            )
    return Weights(str(path), arrays, prefix, naming, names)


def listed(items: list[str], separator: str = ", ") -> str:
    """The first items, and the number of the others."""
    omitted = [f"and {len(items) - _MAX_LISTED} more"] if len(items) > _MAX_LISTED else []
    return separator.join(items[:_MAX_LISTED] + omitted)
