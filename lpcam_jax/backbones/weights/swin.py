"""Files of Swin transformers, under the names of the code bases that publish them.

    ours                      Microsoft, timm               mmsegmentation              transformers
    embedding / patches       patch_embed.proj              patch_embed.projection      embeddings.patch_embeddings
    embedding / norm          patch_embed.norm              patch_embed.norm            embeddings.norm
    stage1 / blocks / 0       layers.0.blocks.0             stages.0.blocks.0           encoder.layers.0.blocks.0
      norm1, norm2              norm1, norm2                  norm1, norm2                layernorm_before, _after
      attention / qkv           attn.qkv                      attn.w_msa.qkv              attention.self.query, ...
      attention / proj          attn.proj                     attn.w_msa.proj             attention.output.dense
      attention / positions     attn.relative_position_bias_table, in the others behind attn.w_msa, attention.self
      fc1, fc2                  mlp.fc1, mlp.fc2              ffn.layers.0.0, .1          intermediate, output.dense
    stage2 / merge            layers.0.downsample           stages.0.downsample         encoder.layers.0.downsample
                              in timm layers.1.downsample
    stage4 / norm             norm                          norm3                       layernorm
    stage1 / norm             norm0                         norm0                       hidden_states_norms.stage1

The four positions that are merged are concatenated here row by row. Microsoft and who follow it have them column by
column; mmsegmentation has the four values of a channel side by side. Where every stage has a norm and the file is a
classifier's, all four are new, 1 and 0, as in mmsegmentation. Neither the stochastic depth nor how pictures were
preprocessed is in a file: only its source tells.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...machine.errors import UserError
from ..swin import PATCH, STAGES, SwinConfig
from .entries import PATCHES, Entries
from .fill import Loaded

# Other code bases' names -> those that are Microsoft's and timm's, one after the other.
_TO_TIMM = {
    r"^swin\.": "",
    r"\bembeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"\bembeddings\.norm\.": "patch_embed.norm.",
    r"\bpatch_embed\.projection\.": "patch_embed.proj.",
    r"\bencoder\.layers\.": "layers.",
    r"\bhidden_states_norms\.stage1\.": "norm0.",
    r"\bhidden_states_norms\.stage2\.": "norm1.",
    r"\bhidden_states_norms\.stage3\.": "norm2.",
    r"\bhidden_states_norms\.stage4\.": "norm3.",
    r"\blayernorm\.": "norm.",
    r"\blayernorm_before\.": "norm1.",
    r"\blayernorm_after\.": "norm2.",
    r"\battn\.w_msa\.": "attn.",
    r"\battention\.(self\.)?([qkv])(uery|ey|alue|_proj)\.": r"attn.\2.",
    r"\battention\.(self|relative_position_bias)\.": "attn.",
    r"\battention\.(output\.dense|o_proj)\.": "attn.proj.",
    r"\b(ffn\.layers\.0\.0|intermediate\.dense)\.": "mlp.fc1.",
    r"\b(ffn\.layers\.1|output\.dense)\.": "mlp.fc2.",
}
_TABLE = "attn.relative_position_bias_table"


class Architecture(NamedTuple):
    """What the entries of a file tell of its network: fields of `SwinConfig`."""

    dim: int
    depths: tuple[int, ...]
    head_dim: int
    mlp_ratio: int
    window: int

    @classmethod
    def of(cls, config: SwinConfig) -> "Architecture":
        """That of a config."""
        return cls(*(getattr(config, name) for name in cls._fields))

    def flags(self, other: "Architecture | None" = None) -> str:
        """The flags of train.py that select it; only those in which it differs from another, if one is given."""
        return " ".join(
            f"--model.{name.replace('_', '-')} {' '.join(map(str, np.atleast_1d(value)))}"
            for name, value in self._asdict().items()
            if other is None or getattr(other, name) != value
        )


def load_swin(path: str | Path, network: dict[str, Any], config: SwinConfig) -> Loaded:
    """Fill the backbone of a network from a file; the other parts are new.

    Args:
        path: as in `read_weight_file`. Heads and whatever else is not the backbone's is skipped.
        network: "backbone", and the other parts of the model, of which only the names are used.
        config: the backbone's.

    Raises:
        UserError: as in `read_weight_file`; or the file holds no Swin transformer, several, or another one: then the
            flags for it are named; or an entry is missing, has no place here, another shape, or values that are not
            finite.
    """
    file = SwinFile(path)
    backbone, new = file.backbone(config)
    return file.loaded({"backbone": backbone}, new | {part: "" for part in network if part != "backbone"})


class SwinFile(Entries):
    """The entries of a Swin transformer."""

    kind = "Swin transformer"
    origins = "Microsoft, timm, transformers or mmsegmentation"
    to_timm = _TO_TIMM
    essential = r"(layers|stages)\.(?!.*(relative_position_index|attn_mask)$)|absolute_pos_embed$"

    @property
    def layers(self) -> str:
        """What is before the number of a stage."""
        return "stages" if any(name.startswith("stages.") for name in self.names) else "layers"

    def architecture(self) -> Architecture:
        """That of the file's network.

        Raises:
            UserError: it is none of ours; what differs is named.
        """
        first = f"{self.layers}.0.blocks.0"
        patches, table, between = map(self.shape, (PATCHES, f"{first}.{_TABLE}", f"{first}.mlp.fc1.weight"))
        if len(patches) != 4 or patches[1:] != (3, PATCH, PATCH) or 0 in patches:
            raise UserError(
                f"{self.path} holds no Swin transformer of patches of {PATCH}x{PATCH} in RGB: {self.names[PATCHES]} "
                f"has shape {patches}."
            )
        dim, side = patches[0], math.isqrt(table[0]) if len(table) == 2 else 0
        if side % 2 == 0 or side**2 != table[0] or not table[1] or dim % table[1] or not between or between[0] % dim:
            raise UserError(
                f"{self.path} holds another kind of Swin transformer: here there are a table of the relative positions "
                f"in a square window for heads that divide {dim} channels ({first}.{_TABLE} has shape "
                f"{table or 'none'}), and two layers after the attention with a multiple of {dim} channels between "
                f"them ({first}.mlp.fc1.weight has shape {between or 'none'})."
            )
        depths = [0] * len(STAGES)
        for name in self.names:
            if match := re.match(rf"{self.layers}\.([0-3])\.blocks\.(\d{{1,3}})\.", name):
                stage, block = map(int, match.groups())
                depths[stage] = max(depths[stage], block + 1)
        return Architecture(dim, tuple(depths), dim // table[1], between[0] // dim, (side + 1) // 2)

    def backbone(self, config: SwinConfig) -> tuple[dict[str, Any], dict[str, str]]:
        """The arrays of the `Swin` of a config, NumPy float32, and its norms that are new -> why.

        What cannot be read is in `problems`.

        Raises:
            UserError: the file holds none, or another one: then the flags for it are named.
        """
        found = self.architecture()
        if flags := found.flags(Architecture.of(config)):
            raise UserError(f"{self.path} holds another Swin transformer: use {flags}.")
        embedding = {
            "patches": {
                "kernel": self.patches(PATCH, found.dim),
                "bias": self.read("patch_embed.proj.bias", found.dim),
            },
            "norm": self.norm("patch_embed.norm", found.dim),
        }
        stages, new = {}, {}
        for number, (stage, depth) in enumerate(zip(STAGES, found.depths, strict=True)):
            dim = found.dim * 2**number
            start = f"{self.layers}.{number}"
            stages[stage] = {"blocks": {i: self.block(f"{start}.blocks.{i}", dim, found) for i in range(depth)}}
            if number:
                stages[stage]["merge"] = self.merge(number, dim // 2)
            if f"norm{number}.weight" in self.names and (config.stage_norms or stage == STAGES[-1]):
                stages[stage]["norm"] = self.norm(f"norm{number}", dim)
            elif config.stage_norms:
                stages[stage]["norm"] = {"scale": np.ones(dim, np.float32), "bias": np.zeros(dim, np.float32)}
                new[f"{stage}'s norm"] = "the file has none"
            elif stage == STAGES[-1]:
                stages[stage]["norm"] = self.norm("norm", dim)
        return {"embedding": embedding, **stages}, new

    def block(self, start: str, dim: int, found: Architecture) -> dict[str, Any]:
        """One block, of a stage of dim channels."""
        inner, positions = found.mlp_ratio * dim, (2 * found.window - 1) ** 2
        return {
            "norm1": self.norm(f"{start}.norm1", dim),
            "attention": {
                "qkv": self.query_key_value(f"{start}.attn", dim),
                "proj": self.linear(f"{start}.attn.proj", dim, dim),
                "positions": self.read(f"{start}.{_TABLE}", positions, dim // found.head_dim),
            },
            "norm2": self.norm(f"{start}.norm2", dim),
            "fc1": self.linear(f"{start}.mlp.fc1", dim, inner),
            "fc2": self.linear(f"{start}.mlp.fc2", inner, dim),
        }

    def merge(self, number: int, dim: int) -> dict[str, Any]:
        """What merges positions of dim channels before the blocks of a stage."""
        # In timm it belongs to the stage that it makes, in the others to the one before.
        before = f"{self.layers}.0.downsample.reduction.weight" in self.names
        start = f"{self.layers}.{number - before}.downsample"
        kernel, norm = self.read(f"{start}.reduction.weight", 2 * dim, 4 * dim).T, self.norm(f"{start}.norm", 4 * dim)
        return {
            "norm": {kind: self.row_by_row(values) for kind, values in norm.items()},
            "reduction": {"kernel": self.row_by_row(kernel)},
        }

    def row_by_row(self, values: np.ndarray) -> np.ndarray:
        """The channels of four positions, on the first axis, from the file's order to ours."""
        if self.layers == "stages":
            return np.ascontiguousarray(values.reshape(-1, 4, *values.shape[1:]).swapaxes(0, 1)).reshape(values.shape)
        four = values.reshape(4, -1, *values.shape[1:])
        return four[[0, 2, 1, 3]].reshape(values.shape)
