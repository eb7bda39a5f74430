"""Pretrained backbones from the torch world: one table of names, exactly one file entry a parameter.

    conv1.weight                  conv1 / kernel           OIHW -> HWIO
    bn1.weight, .bias             bn1 / scale, bias
    bn1.running_mean, _var        bn1 / mean, var
    layer1.0.downsample.0, .1     layer1 / 0 / downsample / conv, bn

A file with batch norm folded into the convolutions has `conv1.bias` instead of `bn1.*`: the same network is a batch
norm with scale 1, shift = bias, mean 0 and variance 1 - epsilon.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import read_arrays

_EPSILON = 1e-5
_BATCH_NORM = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}


def load_backbone(path: str | Path, backbone: dict[str, Any]) -> dict[str, Any]:
    """Read a backbone's arrays from an npz file with torchvision's names.

    Args:
        path: npz file, read without pickle. Entries that are not the backbone's (`fc.*`) are left out.
        backbone: the backbone as a nested dict of arrays or `jax.ShapeDtypeStruct`s: parameters and statistics
            together, keyed as its modules are.

    Returns:
        A nested dict of the same structure, NumPy float32.

    Raises:
        UserError: the file cannot be read, or an entry is missing, of another shape or not finite; all are listed.
    """
    entries = _read(Path(path))
    problems: list[str] = []
    loaded = _fill(backbone, (), entries, problems)
    if problems:
        shown = "; ".join(problems[:6]) + (f"; and {len(problems) - 6} more" if len(problems) > 6 else "")
        raise UserError(f"{path} does not hold this backbone: {shown}. Check --model.blocks, --model.width and so on.")
    return loaded


def _read(path: Path) -> dict[str, np.ndarray]:
    """The file's arrays under our names, convolutions transposed, folded norms unfolded."""
    try:
        arrays = read_arrays(path)
    except FileNotFoundError:
        raise UserError(f"weights file {path} does not exist; give --model.weights an npz file.") from None
    except Exception as error:  # a damaged zip raises whatever its damage makes of it
        raise UserError(f"{path} is not a readable npz file of arrays ({error}); export the weights again.") from None
    entries = {}
    for key, array in arrays.items():
        *module, kind = (
            re.sub(r"\.downsample\.0\.", ".downsample.conv.", key)
            .replace(".downsample.1.", ".downsample.bn.")
            .split(".")
        )
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        if module and module[-1] == "downsample":
            module = [*module, "conv"]
        if module and module[-1].startswith("conv") and kind == "weight":
            entries["/".join([*module, "kernel"])] = array
        elif module and module[-1].startswith("conv") and kind == "bias":
            norm = "/".join([*module[:-1], module[-1].replace("conv", "bn")])
            ones = np.ones_like(array)
            folded = {"scale": ones, "bias": array, "mean": 0 * ones, "var": ones - np.float32(_EPSILON)}
            entries |= {f"{norm}/{name}": value for name, value in folded.items()}
        elif kind in _BATCH_NORM:
            entries["/".join([*module, _BATCH_NORM[kind]])] = array
    return entries


def _fill(tree: Any, path: tuple, entries: dict[str, np.ndarray], problems: list[str]) -> Any:
    if isinstance(tree, dict):
        return {key: _fill(value, (*path, key), entries, problems) for key, value in tree.items()}
    name = "/".join(map(str, path))
    array = entries.get(name)
    if array is None:
        problems.append(f"{name} is missing")
    elif array.shape != tuple(tree.shape):
        problems.append(f"{name} has shape {array.shape}, not {tuple(tree.shape)}")
    elif array.dtype.kind not in "fiu":
        problems.append(f"{name} holds {array.dtype} instead of numbers")
    elif not np.isfinite(array).all():
        problems.append(f"{name} holds values that are not finite")
    else:
        return np.asarray(array, np.float32)
    return tree
