"""EDAM in torch, its loss, its optimizer and its maps.

Independent of the package, so that the two can disagree. Modules are named as in its checkpoints; everything is NCHW;
pictures are alone, never padded.
"""

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from reference.torch_wideresnet import TABLE, WideResNet38


class LayerNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return self.a_2 * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + self.b_2


class Sublayer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = LayerNorm(width)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.linear_layers = nn.ModuleList(nn.Linear(width, width) for _ in range(3))
        self.output_linear = nn.Linear(width, width)

    def forward(self, x):
        n, width = x.shape
        q, k, v = (layer(x).reshape(n, self.heads, width // self.heads).transpose(0, 1) for layer in self.linear_layers)
        weights = torch.softmax(q @ k.transpose(1, 2) / math.sqrt(width // self.heads), -1)
        return self.output_linear((weights @ v).transpose(0, 1).reshape(n, width))


class FeedForward(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.w_1(x)
        return self.w_2(0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attention, self.feed_forward = Attention(width, heads), FeedForward(width)
        self.input_sublayer, self.output_sublayer = Sublayer(width), Sublayer(width)

    def forward(self, x):
        y = x + self.attention(self.input_sublayer.norm(x))
        return y + self.feed_forward(self.output_sublayer.norm(y))


def table(count, width):
    """Row p: sin(p / 10000^(2 i / width)) in 2 i, its cosine in 2 i + 1."""
    rows = torch.zeros(count, width, dtype=torch.float64)
    for p in range(count):
        for i in range(width // 2):
            angle = p / 10000 ** (2 * i / width)
            rows[p, 2 * i], rows[p, 2 * i + 1] = math.sin(angle), math.cos(angle)
    return rows


class Position(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.register_buffer("pe", table(count, width)[None].float())


class Embedding(nn.Module):
    def __init__(self, count, width):
        super().__init__()
        self.position, self.segment = Position(count, width), nn.Embedding(5, width)


class EDAM(WideResNet38):
    """Pairs of pictures, without dropout."""

    def __init__(self, classes, *, width, tokens, grid):
        super().__init__(classes, width=width)
        del self.fc
        self.classes = classes
        self.mask_layer = nn.Conv2d(64 * width, classes + 1, 3, padding=1, bias=False)
        self.d_d = nn.Conv2d(64 * width, tokens, 1, bias=False)
        self.embedding = Embedding(grid * grid, tokens)
        self.trans_list = nn.ModuleList(nn.ModuleList([Block(tokens, 2)]) for _ in range(classes))
        self.fc_list = nn.ModuleList(nn.Conv2d(tokens, 1, 1, bias=False) for _ in range(classes))

    def trunk(self, x):
        """The last batch norm's output, without a ReLU."""
        x = self.conv1a(x)
        for name, *_ in TABLE:
            x, _ = getattr(self, name)(x)
        return self.bn7(x)

    def heat(self, features):
        return F.normalize(self.mask_layer(features), dim=1).abs()

    def forward(self, pair):
        """Logits (2 c,) of two pictures (2, 3, H, W) of any size: [of the first, of the second]."""
        features = self.trunk(pair)
        mask, x = self.heat(features), self.d_d(features)
        _, width, h, w = x.shape
        places, logits = table(h * w, width).to(x), torch.zeros(2, self.classes, dtype=x.dtype)
        for label in range(self.classes):
            tokens = []
            for picture in range(2):
                one = (x[picture] * mask[picture, label]).reshape(width, -1).T
                tokens.append(one + places + self.embedding.segment.weight[picture])
            out = self.trans_list[label][0](torch.cat(tokens))
            for picture in range(2):
                mean = out[picture * h * w : (picture + 1) * h * w].mean(0)
                logits[picture, label] = self.fc_list[label](mean[None, :, None, None]).reshape(())
        return logits.reshape(-1)


def loss(network, pairs, labels):
    """Of pairs (b, 2, 3, H, W) with labels (b, 2, c)."""
    logits = torch.stack([network(pair) for pair in pairs])
    return F.binary_cross_entropy_with_logits(logits, labels.reshape(len(pairs), -1))


@torch.no_grad()
def maps(network, size, resized):
    """Maps (c, H, W) of a picture of this size; `resized` makes the network's input (1, 3, h, w): (scale, mirrored)."""
    total = 0
    for scale in (1.0, 0.5, 1.5, 2.0):
        for mirrored in (False, True):
            heat = network.heat(network.trunk(resized(scale, mirrored)))
            heat = F.interpolate(heat, size, mode="bilinear", align_corners=False)[0]
            total = total + (heat.flip(-1) if mirrored else heat)
    return (total / total.amax((1, 2), keepdim=True))[:-1]


def groups(network, rate, decay):
    """What is trained: convolutions and the attention; of these the new convolutions at ten times the rate."""
    new = [network.mask_layer, network.d_d, *network.fc_list]
    frozen = [network.conv1a, network.b2, network.b2_1, network.b2_2]
    frozen = {id(parameter) for module in frozen for parameter in module.parameters()}
    fast = [module.weight for module in new]
    known = {id(parameter) for parameter in fast} | frozen
    slow = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and id(m.weight) not in known]
    slow += [*network.embedding.parameters(), *network.trans_list.parameters()]
    return [
        {"params": slow, "lr": rate, "weight_decay": decay},
        {"params": fast, "lr": 10 * rate, "weight_decay": decay},
    ]


def factor(step, steps, warm_up, power=0.9):
    """Of the learning rate at a step, counted from 0."""
    if step < warm_up:
        return 0.1 + 0.9 * step / warm_up
    return (1 - (step - warm_up) / (steps - warm_up)) ** power


@torch.no_grad()
def randomized(network, seed=0):
    """Values with which everything matters."""
    generator = torch.Generator().manual_seed(seed)

    def normal(like, scale):
        return scale * torch.randn(like.shape, generator=generator)

    for name, parameter in network.named_parameters():
        of_norm = ".a_2" in name or ("bn" in name and name.endswith("weight"))
        scale = parameter[0].numel() ** -0.5 if parameter.ndim in (2, 4) else 0.3
        parameter.copy_(normal(parameter, scale) + (1.0 if of_norm else 0.0))
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.copy_(normal(buffer, 0.3))
        elif name.endswith("running_var"):
            buffer.copy_(np.exp(1) ** normal(buffer, 0.3))
    return network
