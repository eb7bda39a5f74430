"""Files of whole EDAMs, under the authors' names.

    ours                                    EDAM
    mask_layer / kernel                     mask_layer.weight (c + 1, d, 3, 3)
    reduction / kernel                      d_d.weight (width, d, 1, 1)
    attention / segments                    the first two rows of embedding.segment.weight (5, width)
    attention / blocks, entry c of each     trans_list.c.0
      norm1, norm2: scale, bias               input_sublayer.norm, output_sublayer.norm: a_2, b_2
      query, key, value                       attention.linear_layers.0, .1, .2
      out                                     attention.output_linear
      fc1, fc2                                feed_forward.w_1, .w_2
      score                                 fc_list.c.weight (1, width, 1, 1)

The table of positions, `embedding.position.pe`, is a formula here. The backbone is read as its own `load` does it.
"""

from typing import Any

import numpy as np

from ...backbones.weights.files import read_weight_file
from ...backbones.weights.fill import Loaded, float32_of
from ...backbones.weights.names import listed
from ...machine.errors import UserError
from .config import EDAMConfig

_MASK_LAYER = "mask_layer.weight"
_LINEAR = {
    "query": "attention.linear_layers.0",
    "key": "attention.linear_layers.1",
    "value": "attention.linear_layers.2",
    "out": "attention.output_linear",
    "fc1": "feed_forward.w_1",
    "fc2": "feed_forward.w_2",
}
_NORMS = {"norm1": "input_sublayer.norm", "norm2": "output_sublayer.norm"}


def load_edam(config: EDAMConfig, network: dict[str, Any]) -> Loaded:
    """Fill an EDAM from the file of its config's `model.weights`: the backbone, and the rest if the file has it.

    Args:
        config: the network's.
        network: "backbone" and the other parts, nested dicts of arrays or shapes: parameters and statistics together.

    Returns:
        "backbone" and, of an EDAM of as many classes, all other parts.

    Raises:
        UserError: as in the backbone's `load`; or an entry of the rest is missing, of another shape, or not finite.
    """
    loaded = config.model.load(config.model.weights, network)
    mask_layers = [name for name in loaded.skipped if f".{name}".endswith(f".{_MASK_LAYER}")]
    if not mask_layers:
        return loaded
    file = _File(config.model.weights, mask_layers[0].removesuffix(_MASK_LAYER))
    parts = [part for part in network if part != "backbone"]
    found, classes = len(file.arrays[mask_layers[0]]), network["mask_layer"]["kernel"].shape[-1]
    if found != classes:
        why = f"the file's has {found - 1} classes, this one {classes - 1}"
        return loaded._replace(new=loaded.new | dict.fromkeys(parts, why))
    filled = {
        "mask_layer": {"kernel": file.convolution(_MASK_LAYER, network["mask_layer"]["kernel"].shape)},
        "reduction": {"kernel": file.convolution("d_d.weight", network["reduction"]["kernel"].shape)},
        "attention": file.attention(classes - 1, network["reduction"]["kernel"].shape[-1]),
    }
    if file.problems:
        raise UserError(f"{config.model.weights} does not hold this EDAM: {listed(file.problems, '; ')}.{file.advice}")
    skipped = tuple(name for name in loaded.skipped if name not in file.used)
    return Loaded(loaded.network | filled, loaded.loaded + len(file.used), skipped, {})


class _File:
    """The entries of a file, read one by one; `problems` says why some could not be."""

    def __init__(self, path: str, prefix: str):
        self.arrays, self.prefix = read_weight_file(path), prefix
        self.used, self.problems = set(), []

    @property
    def advice(self) -> str:
        """The flag for the width of the file's attention."""
        reduction = self.arrays.get(f"{self.prefix}d_d.weight")
        return "" if reduction is None else f" Its attention needs --head.width {len(reduction)}."

    def read(self, name: str, *shape: int) -> np.ndarray:
        """An entry of this shape; zeros and a problem if there is none."""
        values, name = None, self.prefix + name
        if name in self.arrays:
            self.used.add(name)
            values = float32_of(name, self.arrays[name], shape, self.problems)
        else:
            self.problems.append(f"{name} is missing")
        return np.zeros(shape, np.float32) if values is None else values

    def convolution(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A kernel of this shape, HWIO."""
        height, width, inputs, outputs = shape
        return self.read(name, outputs, inputs, height, width).transpose(2, 3, 1, 0)

    def linear(self, name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        """A linear layer."""
        return {"kernel": self.read(f"{name}.weight", outputs, inputs).T, "bias": self.read(f"{name}.bias", outputs)}

    def attention(self, classes: int, width: int) -> dict[str, Any]:
        """The attention, its blocks stacked."""
        blocks = [self.block(number, width) for number in range(classes)]
        stacked = {
            layer: {name: np.stack([block[layer][name] for block in blocks]) for name in blocks[0][layer]}
            for layer in (*_NORMS, *_LINEAR)
        }
        stacked["score"] = np.stack([block["score"] for block in blocks])
        return {"segments": self.read("embedding.segment.weight", 5, width)[:2], "blocks": stacked}

    def block(self, number: int, width: int) -> dict[str, Any]:
        """The block of a class."""
        start, sides = f"trans_list.{number}.0", {"fc1": (width, 4 * width), "fc2": (4 * width, width)}
        block = {
            ours: self.linear(f"{start}.{theirs}", *sides.get(ours, (width, width))) for ours, theirs in _LINEAR.items()
        }
        for ours, theirs in _NORMS.items():
            names = {"scale": "a_2", "bias": "b_2"}
            block[ours] = {kind: self.read(f"{start}.{theirs}.{name}", width) for kind, name in names.items()}
        return block | {"score": self.read(f"fc_list.{number}.weight", 1, width, 1, 1).reshape(width, 1)}
