"""Files of U2-Nets: the published ones, small (u2netp) and large, and their ONNX exports.

    ours                     published
    stage1 / first           stage1.rebnconvin.conv_s1, .bn_s1
    stage1 / down / 0        stage1.rebnconv1.conv_s1, .bn_s1
    stage1 / up / 0          stage1.rebnconv1d.conv_s1, .bn_s1
    sides / 0                side1
    fusion                   outconv

A batch norm is folded into the convolution before it. In an ONNX export it already is, and the arrays of such a
convolution have numbers for names: then convolutions are told apart by the order in which the network uses them.
"""

from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import nnx

from ..backbones.weights.files import read_weight_file
from ..backbones.weights.fill import Loaded, float32_of
from ..backbones.weights.names import listed
from ..machine.errors import UserError
from .network import DEPTH, SHAPES, U2Net, Width

PUBLISHED = (
    "u2netp.pth of https://github.com/xuebinqin/U-2-Net, or u2netp.onnx of "
    "https://github.com/danielgatis/rembg/releases/tag/v0.0.0"
)
"""Where weights are had."""
_EPSILON = 1e-5
_STEM = "stage1.rebnconvin.conv_s1.weight"


class Place(NamedTuple):
    """A convolution of the network.

    Attributes:
        path: its keys in the nested dict of the network.
        conv: its name in the published files.
        norm: that of the batch norm after it; "": it has none.
    """

    path: tuple
    conv: str
    norm: str


def load_u2net(path: str | Path) -> tuple[nnx.GraphDef, Loaded]:
    """Read a U2-Net of any width from a file.

    Args:
        path: as in `read_weight_file`, with the published names, or an ONNX export.

    Returns:
        The network's graph; and its parameters, `Loaded.backbone`, a nested dict of NumPy float32.

    Raises:
        UserError: as in `read_weight_file`; or the file holds another network, or values that are not finite.
    """
    entries = _Entries(_published_names(path, read_weight_file(path)))
    convolutions = {place: entries.convolution(place) for place in places()}
    if entries.problems:
        raise _refusal(path, entries.problems)
    outputs = {place.conv: len(bias) for place, (_, bias) in convolutions.items()}
    widths = {
        stage: Width(outputs[f"{stage}.rebnconv1.conv_s1"], outputs[f"{stage}.rebnconvin.conv_s1"]) for stage in SHAPES
    }
    graph, state = nnx.split(nnx.eval_shape(lambda: U2Net(widths, rngs=nnx.Rngs(0))))
    parameters, problems = nnx.to_pure_dict(state), []
    for place, (kernel, bias) in convolutions.items():
        leaves = reduce(dict.__getitem__, place.path, parameters)
        if kernel.shape != (shape := leaves["kernel"].shape):
            problems.append(f"{place.conv}.weight has shape {_stored(kernel.shape)}, not {_stored(shape)}")
        leaves.update(kernel=kernel, bias=bias)
    if problems:
        raise _refusal(path, problems)
    skipped = tuple(name for name in entries.arrays if name not in entries.used)
    return graph, Loaded({"backbone": parameters}, len(entries.used), skipped, {})


def places() -> Iterator[Place]:
    """The convolutions, in the order in which the network computes them."""
    for stage, (levels, _) in SHAPES.items():
        inner = [("rebnconvin", ("first",))]
        inner += [(f"rebnconv{level}", ("down", level - 1)) for level in range(1, levels + 1)]
        inner += [(f"rebnconv{level}d", ("up", level - 1)) for level in range(levels - 1, 0, -1)]
        for name, path in inner:
            yield Place((stage, *path), f"{stage}.{name}.conv_s1", f"{stage}.{name}.bn_s1")
    for number in range(1, DEPTH + 1):
        yield Place(("sides", number - 1), f"side{number}", "")
    yield Place(("fusion",), "outconv", "")


def _published_names(path: str | Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays under their published names, without what is before these (`module.`)."""
    if stems := [name for name in arrays if name == _STEM or name.endswith(f".{_STEM}")]:
        prefix = stems[0].removesuffix(_STEM)
        return {name.removeprefix(prefix): array for name, array in arrays.items()}
    ours = [f"{place.conv}.{kind}" for place in places() for kind in ("weight", "bias")]
    # Of floats: those of a quantized export need the scales that are beside them.
    theirs = [name for name, array in arrays.items() if array.ndim in (1, 4) and array.dtype.kind == "f"]
    if len(ours) != len(theirs) or any(b in ours and a != b for a, b in zip(ours, theirs, strict=True)):
        entries = f"its {len(arrays)} entries ({', '.join(list(arrays)[:3])}, ...)"
        raise _refusal(path, [f"among {entries} is no {_STEM}, nor are they an export's, in its order"])
    return {a: arrays[b] for a, b in zip(ours, theirs, strict=True)}


def _refusal(path: str | Path, problems: list[str]) -> UserError:
    return UserError(f"{path} holds no U2-Net: {listed(problems, '; ')}. Give {PUBLISHED}.")


def _stored(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that a kernel has in a file: OIHW."""
    return (*shape[:1:-1], *shape[:2])


class _Entries:
    """The entries of a file, read one by one: which were used, and why others could not be."""

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays, self.used, self.problems = arrays, set(), []

    def convolution(self, place: Place) -> tuple[np.ndarray, np.ndarray]:
        """Kernel (size, size, inputs, outputs) and bias (outputs,), with the batch norm folded in, if there is one."""
        kernel = self._read(f"{place.conv}.weight")
        bias = self._read(f"{place.conv}.bias", len(kernel))
        if place.norm and f"{place.norm}.weight" in self.arrays:
            kinds = ("weight", "bias", "running_mean", "running_var")
            scale, shift, mean, var = (np.float64(self._read(f"{place.norm}.{kind}", len(kernel))) for kind in kinds)
            if (var < 0).any():
                self.problems.append(f"{place.norm}.running_var holds a negative variance")
            factor = scale / np.sqrt(np.abs(var) + _EPSILON)
            kernel, bias = kernel * factor.reshape(-1, 1, 1, 1), (bias - mean) * factor + shift
        return np.float32(kernel.transpose(2, 3, 1, 0)), np.float32(bias)

    def _read(self, name: str, length: int | None = None) -> np.ndarray:
        """A vector of this length, or a kernel OIHW of any shape; zeros, and a problem, if there is none."""
        array = self.arrays.get(name)
        if array is None:
            self.problems.append(f"{name} is missing")
        else:
            self.used.add(name)
            shape = array.shape if length is None else (length,)
            if length is None and (array.ndim != 4 or not array.size):
                self.problems.append(f"{name} has shape {shape}, which is no convolution's")
            elif (values := float32_of(name, array, shape, self.problems)) is not None:
                return values
        return np.zeros((1, 1, 1, 1) if length is None else length, np.float32)
