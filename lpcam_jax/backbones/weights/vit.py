"""Files of vision transformers, under the names of the code bases that publish them.

    ours                    timm, DeiT, DINO, DINOv2    CLIP, open_clip            transformers
    embedding / patches     patch_embed.proj            conv1                      embeddings.patch_embeddings
    embedding / tokens      cls_token, dist_token,      class_embedding            embeddings.cls_token, ...
                            reg_token, register_tokens
    embedding / positions   pos_embed                   positional_embedding       embeddings.position_embeddings
    embedding / norm        norm_pre                    ln_pre                     pre_layrnorm
    blocks1 / blocks / 0    blocks.0                    transformer.resblocks.0    encoder.layer.0
      norm1, norm2            norm1, norm2                ln_1, ln_2                 norm1, layernorm_before, ...
      qkv                     attn.qkv                    attn.in_proj_              attention.attention.query, ...
      proj                    attn.proj                   attn.out_proj              attention.output.dense
      fc1, fc2                mlp.fc1, mlp.fc2            mlp.c_fc, mlp.c_proj       intermediate, output.dense
      gamma1, gamma2          ls1.gamma, ls2.gamma                                   layer_scale1.lambda1, ...
    blocks4 / norm          norm                        ln_post                    layernorm

What is before them, such as `visual.` or `module.`, is found by the patches. A token is stored here with its position
added. Neither the channels of a head nor the activation, the epsilon of the norms, how positions are resized and how
pictures were preprocessed are in a file: only its source tells.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...machine.errors import UserError
from ..config import ViTConfig
from ..vit import quarters
from .entries import PATCHES, Entries
from .fill import Loaded

# Other code bases' names -> timm's, one after the other.
_TO_TIMM = {
    r"\bembeddings\.patch_embedding(s\.projection)?\.": "patch_embed.proj.",
    r"\bembeddings\.position_embeddings?(\.weight)?$": "pos_embed",
    r"\bembeddings\.(?=\w+$)": "",
    r"\bclass_embedding$": "cls_token",
    r"\bdistillation_token$": "dist_token",
    r"\bregister_tokens$": "reg_token",
    r"\bpositional_embedding$": "pos_embed",
    r"\bconv1\.": "patch_embed.proj.",
    r"\b(ln_pre|pre_layrnorm)\.": "norm_pre.",
    r"\b(ln_post|post_layernorm|layernorm)\.": "norm.",
    r"\b(transformer\.resblocks|(encoder\.)?layers?)\.": "blocks.",
    r"\b(ln_1|layernorm_before|layer_norm1)\.": "norm1.",
    r"\b(ln_2|layernorm_after|layer_norm2)\.": "norm2.",
    r"\battn\.in_proj_": "attn.qkv.",
    r"\b(attention(\.attention)?|self_attn)\.([qkv])(uery|ey|alue|_proj)\.": r"attn.\3.",
    r"\b(attn\.out_proj|attention\.(output\.dense|o_proj)|self_attn\.out_proj)\.": "attn.proj.",
    r"\b(mlp\.c_fc|intermediate\.dense)\.": "mlp.fc1.",
    r"\b(mlp\.c_proj|output\.dense)\.": "mlp.fc2.",
    r"\blayer_scale([12])\.lambda1$": r"ls\1.gamma",
}


class Architecture(NamedTuple):
    """What the entries of a file tell of its network: fields of `ViTConfig`."""

    patch: int
    dim: int
    depth: int
    mlp_ratio: int
    tokens: int
    position_grid: int
    layer_scale: bool
    pre_norm: bool
    final_norm: bool

    @classmethod
    def of(cls, config: ViTConfig) -> "Architecture":
        """That of a config."""
        return cls(*(getattr(config, name) for name in cls._fields))

    def flags(self, other: "Architecture | None" = None) -> str:
        """The flags of train.py that select it; only those in which it differs from another, if one is given."""
        named = self._asdict().items()
        return " ".join(_flag(name, value) for name, value in named if other is None or getattr(other, name) != value)


def _flag(name: str, value: int) -> str:
    name = name.replace("_", "-")
    return f"--model.{'' if value else 'no-'}{name}" if isinstance(value, bool) else f"--model.{name} {value}"


def load_vit(path: str | Path, network: dict[str, Any], config: ViTConfig) -> Loaded:
    """Fill the backbone of a network from a file; the other parts are new.

    Args:
        path: as in `read_weight_file`. Heads, text encoders and whatever else is not the backbone's is skipped.
        network: "backbone", and the other parts of the model, of which only the names are used.
        config: the backbone's.

    Raises:
        UserError: as in `read_weight_file`; or the file holds no ViT, several, or another one: then the flags for it
            are named; or an entry is missing, has no place here, another shape, or values that are not finite.
    """
    file = ViTFile(path)
    return file.loaded({"backbone": file.backbone(config)}, {part: "" for part in network if part != "backbone"})


class ViTFile(Entries):
    """The entries of a vision transformer."""

    kind = "vision transformer"
    origins = "timm, DINOv2, CLIP or transformers"
    to_timm = _TO_TIMM
    essential = r"blocks\.|norm_pre\.|(dist|reg)_token$"

    def architecture(self, config: ViTConfig) -> Architecture:
        """That of the file's network.

        Raises:
            UserError: it is none of ours; what differs is named.
        """
        patches, positions, between = map(self.shape, (PATCHES, "pos_embed", "blocks.0.mlp.fc1.weight"))
        if len(patches) != 4 or patches[1] != 3 or patches[2] != patches[3] or 0 in patches:
            raise UserError(
                f"{self.path} holds no vision transformer of square patches in RGB: {self.names[PATCHES]} has shape "
                f"{patches}."
            )
        dim, _, _, patch = patches
        # The tokens have positions; or they have none, or have them already.
        singles = sum(map(self.count, self.singles()))
        rows = math.prod(positions) // dim if positions[-1:] == (dim,) else 0
        squares = (rows - count for count in (singles, 0))
        grid = next((math.isqrt(square) for square in squares if square > 0 and math.isqrt(square) ** 2 == square), 0)
        if not grid or not between or between[0] % dim:
            raise UserError(
                f"{self.path} holds another kind of vision transformer: here there are learned positions of a square "
                f"grid (pos_embed has shape {positions or 'none'}), and two layers after the attention with a multiple "
                f"of {dim} channels between them (blocks.0.mlp.fc1.weight has shape {between or 'none'})."
            )
        numbers = [int(match[1]) for name in self.names if (match := re.match(r"blocks\.(\d{1,3})\.", name))]
        return Architecture(
            patch=patch,
            dim=dim,
            depth=max(numbers) + 1,
            mlp_ratio=between[0] // dim,
            tokens=singles + self.count("reg_token"),
            position_grid=grid,
            layer_scale="blocks.0.ls1.gamma" in self.names,
            pre_norm="norm_pre.weight" in self.names,
            final_norm=config.final_norm and "norm.weight" in self.names,
        )

    def singles(self) -> list[str]:
        """The tokens that have an entry of their own."""
        return [name for name in ("cls_token", "dist_token") if name in self.names]

    def count(self, name: str) -> int:
        """The number of tokens in an entry."""
        return math.prod(self.shape(name)[:-1]) if self.shape(name) else 0

    def backbone(self, config: ViTConfig) -> dict[str, Any]:
        """The arrays of the `ViT` of a config, NumPy float32; what cannot be read is in `problems`.

        Raises:
            UserError: the file holds none, or another one: then the flags for it are named.
        """
        found = self.architecture(config)
        if flags := found.flags(Architecture.of(config)):
            raise UserError(f"{self.path} holds another vision transformer: use {flags}.")
        patch, dim = found.patch, found.dim
        kernel = self.patches(patch, dim)
        if found.pre_norm:
            embedding = {"patches": {"kernel": kernel}, "norm": self.norm("norm_pre", dim)}
        else:
            embedding = {"patches": {"kernel": kernel, "bias": self.read("patch_embed.proj.bias", dim)}}
        tokens, positions = self.tokens_and_positions(found)
        stages = {
            f"blocks{number}": {"blocks": dict(enumerate(self.block(block, found) for block in blocks))}
            for number, blocks in enumerate(quarters(range(found.depth)), start=1)
        }
        if found.final_norm:
            stages["blocks4"]["norm"] = self.norm("norm", dim)
        return {"embedding": embedding | {"tokens": tokens, "positions": positions}, **stages}

    def tokens_and_positions(self, found: Architecture) -> tuple[np.ndarray, np.ndarray]:
        """Tokens (t, d), their own positions added, and the others' positions (N, N, d)."""
        dim, grid = found.dim, found.position_grid
        singles = np.concatenate([np.zeros((0, dim), np.float32), *(self.rows(name, dim) for name in self.singles())])
        positions = self.rows("pos_embed", dim)
        if own := len(positions) - grid**2:
            singles = singles + positions[:own]
        registers = [self.rows("reg_token", dim)] if "reg_token" in self.names else []
        return np.concatenate([singles, *registers]), positions[own:].reshape(grid, grid, dim)

    def block(self, number: int, found: Architecture) -> dict[str, Any]:
        """One block."""
        start, dim, inner = f"blocks.{number}", found.dim, found.mlp_ratio * found.dim
        scales = ("ls1", "ls2") if found.layer_scale else ()
        return {
            "norm1": self.norm(f"{start}.norm1", dim),
            "qkv": self.query_key_value(f"{start}.attn", dim),
            "proj": self.linear(f"{start}.attn.proj", dim, dim),
            "norm2": self.norm(f"{start}.norm2", dim),
            "fc1": self.linear(f"{start}.mlp.fc1", dim, inner),
            "fc2": self.linear(f"{start}.mlp.fc2", inner, dim),
            **{f"gamma{scale[-1]}": self.read(f"{start}.{scale}.gamma", dim) for scale in scales},
        }

    def rows(self, name: str, dim: int) -> np.ndarray:
        """An entry as rows (n, dim), however many axes of length 1 it has."""
        return self.read(name, *self.shape(name)[:-1], dim).reshape(-1, dim)
