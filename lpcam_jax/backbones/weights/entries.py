"""The entries of a transformer in a file, read one by one under timm's names, whatever code base wrote them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ...machine.errors import UserError
from .files import read_weight_file
from .fill import Loaded, float32_of
from .names import listed

PATCHES = "patch_embed.proj.weight"


class Entries:
    """The entries of a file.

    Args:
        path: as in `read_weight_file`.

    Attributes:
        arrays: all of them, by the file's names.
        names: timm's name, without what is before it, -> the file's name, of the network's entries.
        used: the file's names of those that were read.
        problems: why others could not be.

    Each kind of network declares

        kind: what the file is to hold, for the line that says that it does not.
        origins: whose names are known, for the same.
        to_timm: patterns of other code bases' names -> timm's, one after the other.
        essential: pattern of timm's names that a network must have a place for: without it, it is another one.

    Raises:
        UserError: as in `read_weight_file`; or there is no network of patches, or several, or two names for one entry.
    """

    kind: ClassVar[str]
    origins: ClassVar[str]
    to_timm: ClassVar[Mapping[str, str]]
    essential: ClassVar[str]

    def __init__(self, path: str | Path):
        self.path, self.arrays = path, read_weight_file(path)
        self.names, self.used, self.problems = {}, set(), []
        translated = {name: self._translated(name) for name in self.arrays}
        found = {ours: name for name, ours in translated.items() if re.search(rf"(^|\.){PATCHES}$", ours)}
        if not found:
            raise UserError(
                f"{path} holds no {self.kind} with the names of {self.origins}: among its {len(self.arrays)} entries "
                f"({', '.join(list(self.arrays)[:3])}, ...) is no {PATCHES}."
            )
        if len(found) > 1:
            several = f"{len(found)} backbones ({listed(list(found.values()))})"
            raise UserError(f"{path} holds {several}; save the one you need as a file.")
        [prefix] = (ours.removesuffix(PATCHES) for ours in found)
        for name, ours in translated.items():
            if ours.startswith(prefix) and (other := self.names.setdefault(ours.removeprefix(prefix), name)) != name:
                raise UserError(
                    f"{path} holds {other} and {name}, two names for one entry; save the one you need as a file."
                )

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an entry; () if there is none."""
        return self.arrays[self.names[name]].shape if name in self.names else ()

    def read(self, name: str, *shape: int) -> np.ndarray:
        """An entry of this shape; zeros and a problem if there is none."""
        values = None
        if name in self.names:
            theirs = self.names[name]
            self.used.add(theirs)
            values = float32_of(theirs, self.arrays[theirs], shape, self.problems)
        else:
            self.problems.append(f"{name} is missing")
        return np.zeros(shape, np.float32) if values is None else values

    def patches(self, patch: int, dim: int) -> np.ndarray:
        """The convolution of the patches, as the kernel (3 patch^2, dim) of a linear layer."""
        return self.read(PATCHES, dim, 3, patch, patch).transpose(2, 3, 1, 0).reshape(-1, dim)

    def query_key_value(self, start: str, dim: int) -> dict[str, np.ndarray]:
        """The three linear layers of the attention as one, however they are stored."""
        if f"{start}.q.weight" not in self.names:
            return self.linear(f"{start}.qkv", dim, 3 * dim)
        three = [self.linear(f"{start}.{one}", dim, dim) for one in "qkv"]
        return {kind: np.concatenate([one[kind] for one in three], axis=-1) for kind in ("kernel", "bias")}

    def linear(self, name: str, inputs: int, outputs: int) -> dict[str, np.ndarray]:
        """A linear layer."""
        return {"kernel": self.read(f"{name}.weight", outputs, inputs).T, "bias": self.read(f"{name}.bias", outputs)}

    def norm(self, name: str, dim: int) -> dict[str, np.ndarray]:
        """A norm."""
        return {"scale": self.read(f"{name}.weight", dim), "bias": self.read(f"{name}.bias", dim)}

    def loaded(self, parts: dict[str, Any], new: dict[str, str]) -> Loaded:
        """The report, after everything has been read.

        Args:
            parts: the parts of the network that were read.
            new: the others, as in `Loaded`.

        Raises:
            UserError: something was missing, has no place here, or other shapes or values.
        """
        entries = self.names.items()
        unknown = [name for timm, name in entries if name not in self.used and re.match(self.essential, timm)]
        if unknown:
            self.problems.append(f"there is no place for {listed(unknown)}")
        if self.problems:
            raise UserError(f"{self.path} does not hold this backbone: {listed(self.problems, '; ')}.")
        return Loaded(parts, len(self.used), tuple(name for name in self.arrays if name not in self.used), new)

    def _translated(self, name: str) -> str:
        for theirs, timm in self.to_timm.items():
            name = re.sub(theirs, timm, name)
        return name
