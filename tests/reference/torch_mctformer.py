"""MCTformer in torch, its losses, its optimizer and its maps.

Independent of the package, so that the two can disagree. Modules are named as in its checkpoints; everything is NCHW;
pictures are alone, never padded.
"""

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        weights = torch.softmax(q @ k.transpose(-1, -2) / (d // self.heads) ** 0.5, -1)
        return self.proj((weights @ v).transpose(1, 2).reshape(b, n, d)), weights


class Mlp(nn.Module):
    def __init__(self, dim, ratio):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, ratio * dim), nn.Linear(ratio * dim, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio):
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(dim, eps=1e-6), Attention(dim, heads)
        self.norm2, self.mlp = nn.LayerNorm(dim, eps=1e-6), Mlp(dim, ratio)

    def forward(self, x, factors):
        """`factors` (2, b): 0 drops a branch of a picture, 1 / keep scales what is kept."""
        y, weights = self.attn(self.norm1(x))
        x = x + factors[0][:, None, None] * y
        return x + factors[1][:, None, None] * self.mlp(self.norm2(x)), weights


class PatchEmbed(nn.Module):
    def __init__(self, patch, dim):
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, patch)


class MCTformer(nn.Module):
    def __init__(self, classes, *, patch, dim, depth, heads, ratio, grid, has_head=True):
        super().__init__()
        self.classes, self.grid, self.has_head = classes, grid, has_head
        self.cls_token = nn.Parameter(torch.zeros(1, classes, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, classes + grid**2, dim))
        self.patch_embed = PatchEmbed(patch, dim)
        self.blocks = nn.ModuleList(Block(dim, heads, ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        if has_head:
            self.head = nn.Conv2d(dim, classes, 3, padding=1)

    def positions(self, height, width):
        own, others = self.pos_embed[:, : self.classes], self.pos_embed[:, self.classes :]
        if (height, width) != (self.grid, self.grid):
            square = others.reshape(1, self.grid, self.grid, -1).permute(0, 3, 1, 2)
            factors = ((height + 0.1) / self.grid, (width + 0.1) / self.grid)
            others = F.interpolate(square, scale_factor=factors, mode="bicubic").flatten(2).transpose(1, 2)
        return torch.cat([own, others], 1)

    def forward(self, images, factors=None):
        """Class logits, patch logits, PatchCAM before its ReLU, patches and the attention of every block."""
        patches = self.patch_embed.proj(images)
        b, _, height, width = patches.shape
        x = torch.cat([self.cls_token.expand(b, -1, -1), patches.flatten(2).transpose(1, 2)], 1)
        x = x + self.positions(height, width)
        attention = []
        for number, block in enumerate(self.blocks):
            x, weights = block(x, images.new_ones(2, b) if factors is None else factors[number])
            attention.append(weights)
        tokens = x[:, self.classes :].transpose(1, 2).reshape(b, -1, height, width)
        scores = self.head(tokens) if self.has_head else None
        patch_logits = scores.mean((2, 3)) if self.has_head else None
        return x[:, : self.classes].mean(-1), patch_logits, scores, tokens, attention


def loss(class_logits, patch_logits, labels):
    both = [class_logits] if patch_logits is None else [class_logits, patch_logits]
    return sum(F.multilabel_soft_margin_loss(logits, labels) for logits in both)


def fused(scores, attention, classes, last):
    """The map (c, h, w) of the only picture: `scores` (c, h, w) is what is fused; None: attention alone."""
    means = [weights[0].mean(0) for weights in attention]
    maps = sum(weights[:classes, classes:] for weights in means[-last:])
    cam = maps if scores is None else maps * scores.flatten(1)
    affinity = sum(weights[classes:, classes:] for weights in means)
    return (affinity @ cam.T).T


@torch.no_grad()
def maps(network, picture, labels, *, last, activation=None):
    """Maps (c, H, W) of a picture (1, 3, H, W) with labels (c,).

    `activation` (patches (d, h, w) -> (c, h, w)) takes PatchCAM's place.
    """
    size, total = picture.shape[2:], 0
    for mirrored in (False, True):
        image = picture.flip(-1) if mirrored else picture
        _, _, scores, tokens, attention = network(image)
        if activation is not None:
            scores = activation(tokens[0])
        elif scores is not None:
            scores = F.relu(scores[0])
        grid = tokens.shape[2:]
        cam = fused(scores, attention, network.classes, last).reshape(1, -1, *grid)
        cam = F.interpolate(cam, size, mode="bilinear", align_corners=False)[0] * labels[:, None, None]
        total = total + (cam.flip(-1) if mirrored else cam)
    low, high = (extreme(total.flatten(1), 1)[:, None, None] for extreme in (torch.amin, torch.amax))
    return (total - low) / (high - low + 1e-8)


def adamw(network, rate, decay):
    """timm's groups: no decay of vectors, biases, tokens and positions."""
    decayed, others = [], []
    for name, parameter in network.named_parameters():
        small = parameter.ndim <= 1 or name.endswith(".bias") or name in ("cls_token", "pos_embed")
        (others if small else decayed).append(parameter)
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": decay}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8)


@torch.no_grad()
def randomized(network, seed=0):
    """Values with which everything matters: tokens and positions of about 1, norms that shift and scale."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim in (2, 4) else 0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
        if ".norm" in f".{name}" and name.endswith("weight"):
            parameter += 1
    return network
