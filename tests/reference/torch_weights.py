"""Torch's weights in the structure of ours, and arrays of one in the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

KINDS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def torch_name(path: tuple) -> str:
    """Torch's name of a leaf of ours: layer1/0/downsample/bn/var -> layer1.0.downsample.1.running_var.

    The backbone's names stand alone; a `conv` and its `bn` or `gn` are the first two of a Sequential.
    """
    *module, kind = [str(entry.key) for entry in path if entry.key != "backbone"]
    if kind == "head":
        return "fc.weight"
    return ".".join([*({"conv": "0", "bn": "1", "gn": "1"}.get(name, name) for name in module), KINDS[kind]])


def to_jax(array: torch.Tensor) -> np.ndarray:
    """A weight in our order of axes, HWIO and (inputs, classes)."""
    axes = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[array.ndim]
    return array.detach().numpy().transpose(axes).astype(np.float32)


def filled(tree: dict[str, Any], arrays: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Torch's arrays in the structure of `tree`."""

    def array(path, leaf):
        value = to_jax(arrays[torch_name(path)])
        assert (value.shape, value.dtype) == (leaf.shape, leaf.dtype), path
        return jnp.asarray(value)

    return jax.tree_util.tree_map_with_path(array, tree)


def to_torch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float64).transpose(0, 3, 1, 2).copy())


def relative_difference(value: Any, expected: Any, floor: float = 0.0) -> float:
    value, expected = np.asarray(value), np.asarray(expected)
    assert value.shape == expected.shape
    return np.abs(value - expected).max() / max(np.abs(expected).max(), floor)
