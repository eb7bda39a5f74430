"""Pretrained networks from torch: each parameter is filled from exactly one entry of a file.

Backbones have torchvision's names, or those of a code base that `names` knows; convolutions are OIHW there and HWIO
here. A file with batch norm folded into the convolutions has `conv1.bias` instead of `bn1.*`; the equivalent batch norm
has scale 1, shift = bias, mean 0 and variance 1 - epsilon.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ...machine.errors import UserError
from .names import Weights, listed, torchvision_names

_FOLDED = {"scale": np.float32(1), "mean": np.float32(0), "var": np.float32(1) - np.float32(1e-5)}


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


def fill_whole_backbone(
    weights: Weights, network: dict[str, Any], *, modules: str, advice: Callable[[Weights, dict[str, Any]], str]
) -> Loaded:
    """Fill a backbone of any kind from a file; the other parts of its network are new.

    Args:
        weights: as returned by `read_weights`.
        network: "backbone", a nested dict of arrays or `jax.ShapeDtypeStruct`s, parameters and statistics together,
            keyed as its modules are; and the other parts of the model.
        modules: pattern of the names of entries that the backbone must have a place for.
        advice: (weights, backbone) -> a sentence about weights that do not fit, without a semicolon.

    Returns:
        "backbone", nested likewise, NumPy float32, and the entries that were loaded and skipped.

    Raises:
        UserError: an entry is missing, duplicate, of another shape, not finite, or a negative variance, or the backbone
            has no place for it: all such entries are listed, with the advice.
    """
    new = {part: "" for part in network if part != "backbone"}
    return _filled(weights, {"backbone": network["backbone"]}, new, modules, advice)


def fill_with_head(
    weights: Weights, network: dict[str, Any], *, modules: str, advice: Callable[[Weights, dict[str, Any]], str]
) -> Loaded:
    """Like `fill_whole_backbone`, and a head that is a list of convolutions, if the file has one of the same shapes.

    Raises:
        UserError: as there; or a head of the right shapes holds values that are not finite.
    """
    parts, new = {"backbone": network["backbone"]}, {part: "" for part in network if part != "backbone"}
    if isinstance(network.get("head"), dict):  # a classifier's head is an array, and always new
        new["head"] = _misfit(weights, network["head"])
        if not new["head"]:
            del new["head"]
            parts["head"] = network["head"]
    return _filled(weights, parts, new, modules, advice)


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
        for path, array in leaves(tree, _start(part))
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
    shapes = {torchvision_names(path)[0]: stored_shape(leaf.shape) for path, leaf in leaves(head, _start("head"))}
    if not shapes.keys() & weights.names.keys():
        return "the file has none"
    if missing := [weights.name(name) for name in shapes if name not in weights.names]:
        return f"the file lacks {listed(missing)}"
    found = {name: weights.array(name).shape for name in shapes}
    classes = ""
    for name, shape in shapes.items():
        if found[name] != shape:
            if len(found[name]) != len(shape) or found[name][1:] != shape[1:]:
                return f"{weights.name(name)} has shape {found[name]}, not {shape}"
            classes = f"the file's has {found[name][0]} classes, this one {shape[0]}"
    return classes


def leaves(tree: Any, path: tuple) -> Iterator[tuple[tuple, Any]]:
    """Path and value of everything in a nested dict; `path` is what stands before its own keys."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*path, key))
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
    names, shape = torchvision_names(path), stored_shape(tree.shape)
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


def stored_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in a file: a convolution's is OIHW."""
    return (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else tuple(shape)


def _without_place(weights: Weights, used: set[str], modules: str) -> list[str]:
    """The entries of modules that a backbone does not have: without them, it is another network than the file's."""
    return [
        name
        for ours, name in weights.names.items()
        if name not in used and re.match(modules, ours) and not ours.endswith("num_batches_tracked")
    ]
