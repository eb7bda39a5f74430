"""Vision transformers in torch, of one picture size a call; modules are named as in timm (DeiT, DINOv2) and in CLIP."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F

ACTIVATIONS = {"gelu": F.gelu, "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x)}


def resized(positions: torch.Tensor, size: tuple[int, int], resize: str) -> torch.Tensor:
    """Positions (N^2, d) of a square grid -> (h w, d)."""
    side = round(len(positions) ** 0.5)
    if size == (side, side):
        return positions
    grid = positions.T.reshape(1, -1, side, side)
    if resize == "offset":
        factors = tuple((length + 0.1) / side for length in size)
        grid = F.interpolate(grid, scale_factor=factors, mode="bicubic")
    else:
        grid = F.interpolate(grid, size=size, mode="bicubic", antialias=resize == "antialiased")
    assert grid.shape[2:] == size
    return grid[0].flatten(1).T


def patches_of(conv: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
    """Pictures, padded to whole patches -> (b, d, h, w)."""
    height, width = images.shape[2:]
    patch = conv.stride[0]
    return conv(F.pad(images, (0, -width % patch, 0, -height % patch)))


def stages_of(blocks: nn.Module, last: nn.Module, x: torch.Tensor, size: tuple[int, int]) -> list[torch.Tensor]:
    """The patches (b, h, w, d) after each quarter of the blocks, the last of them normalized."""
    outputs, count = [], len(blocks)
    for number, block in enumerate(blocks):
        x = block(x)
        if number + 1 in [count * quarter // 4 for quarter in range(1, 5)]:
            y = last(x) if number + 1 == count else x
            outputs.append(y[:, -size[0] * size[1] :].reshape(len(x), *size, -1))
    return outputs


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim), heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (d // self.heads) ** -0.5).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d))


class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * self.gamma


class Mlp(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio, layer_scale):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(dim, eps=1e-6) for _ in range(2))
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, ratio)
        self.ls1, self.ls2 = (LayerScale(dim) if layer_scale else nn.Identity() for _ in range(2))

    def forward(self, x):
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    def __init__(self, dim, patch):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)


class ViT(nn.Module):
    """DeiT, with a distillation token or not; DINO and DINOv2, with registers or not."""

    def __init__(
        self, *, dim, depth, heads, patch, grid, ratio=4, distilled=False, registers=0, layer_scale=False, resize
    ):
        super().__init__()
        self.singles, self.resize = 1 + distilled, resize
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if distilled:
            self.dist_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.register_tokens = nn.Parameter(torch.zeros(1, registers, dim)) if registers else None
        self.pos_embed = nn.Parameter(torch.zeros(1, self.singles + grid**2, dim))
        self.patch_embed = PatchEmbed(dim, patch)
        self.blocks = nn.ModuleList([Block(dim, heads, ratio, layer_scale) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 7)

    def forward(self, images):
        patches = patches_of(self.patch_embed.proj, images)
        size = tuple(patches.shape[2:])
        x = patches.flatten(2).transpose(1, 2) + resized(self.pos_embed[0, self.singles :], size, self.resize)
        singles = [self.cls_token] if self.singles == 1 else [self.cls_token, self.dist_token]
        tokens = torch.cat(singles, dim=1) + self.pos_embed[:, : self.singles]
        if self.register_tokens is not None:
            tokens = torch.cat([tokens, self.register_tokens], dim=1)
        x = torch.cat([tokens.expand(len(x), -1, -1), x], dim=1)
        return stages_of(self.blocks, self.norm, x, size)


class ResidualAttentionBlock(nn.Module):
    def __init__(self, dim, heads, ratio, activation):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.ln_1, self.ln_2, self.activation = nn.LayerNorm(dim), nn.LayerNorm(dim), ACTIVATIONS[activation]
        layers = {"c_fc": nn.Linear(dim, ratio * dim), "c_proj": nn.Linear(ratio * dim, dim)}
        self.mlp = nn.ModuleDict(OrderedDict(layers))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](self.activation(self.mlp["c_fc"](self.ln_2(x))))


class Transformer(nn.Module):
    def __init__(self, depth, *arguments):
        super().__init__()
        self.resblocks = nn.ModuleList([ResidualAttentionBlock(*arguments) for _ in range(depth)])


class Visual(nn.Module):
    """CLIP's encoder of pictures."""

    def __init__(self, *, dim, depth, heads, patch, grid, ratio=4, activation="quick_gelu", resize):
        super().__init__()
        self.resize = resize
        self.conv1 = nn.Conv2d(3, dim, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(dim))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + grid**2, dim))
        self.ln_pre, self.ln_post = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.transformer = Transformer(depth, dim, heads, ratio, activation)
        self.proj = nn.Parameter(torch.zeros(dim, 5))

    def forward(self, images):
        patches = patches_of(self.conv1, images)
        size = tuple(patches.shape[2:])
        x = patches.flatten(2).transpose(1, 2) + resized(self.positional_embedding[1:], size, self.resize)
        token = (self.class_embedding + self.positional_embedding[0]).expand(len(x), 1, -1)
        x = self.ln_pre(torch.cat([token, x], dim=1))
        return stages_of(self.transformer.resblocks, self.ln_post, x, size)


class CLIP(nn.Module):
    """An encoder of pictures, and one of texts, which has names like it."""

    def __init__(self, **options):
        super().__init__()
        self.visual = Visual(**options)
        self.transformer = Transformer(1, 8, 2, 4, "gelu")
        self.positional_embedding = nn.Parameter(torch.zeros(9, 8))
        self.ln_final = nn.LayerNorm(8)
        self.logit_scale = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        return self.visual(images)
