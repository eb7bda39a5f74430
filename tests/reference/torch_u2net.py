"""U2-Net in torch, written from the paper's Figure 5, under the names of the published files.

A block of L levels: in; 1; pool, 2; pool, 3; ... pool, L - 1; L, dilated by 2; and back: L - 1, ..., 1, each on its
level and what is below. A flat block has no pools, and levels of dilation 1, 2, 4, 8.
"""

import torch
from torch import nn
from torch.nn import functional as F

LEVELS = {1: 7, 2: 6, 3: 5, 4: 4, 5: 0, 6: 0}


class Layer(nn.Module):
    def __init__(self, inputs, outputs, dilation=1):
        super().__init__()
        self.conv_s1 = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return F.relu(self.bn_s1(self.conv_s1(x)))


def like(x, other):
    return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


def pool(x):
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


class Block(nn.Module):
    """Levels 0: flat."""

    def __init__(self, levels, inputs, inner, outputs):
        super().__init__()
        self.flat, self.levels = not levels, levels or 4
        self.rebnconvin = Layer(inputs, outputs)
        for level in range(1, self.levels + 1):
            dilation = 2 ** (level - 1) if self.flat else 2 if level == self.levels else 1
            setattr(self, f"rebnconv{level}", Layer(outputs if level == 1 else inner, inner, dilation))
        for level in range(self.levels - 1, 0, -1):
            dilation = 2 ** (level - 1) if self.flat else 1
            setattr(self, f"rebnconv{level}d", Layer(2 * inner, outputs if level == 1 else inner, dilation))

    def forward(self, x):
        start = self.rebnconvin(x)
        down = {1: self.rebnconv1(start)}
        for level in range(2, self.levels + 1):
            is_pooled = not self.flat and level < self.levels
            x = pool(down[level - 1]) if is_pooled else down[level - 1]
            down[level] = getattr(self, f"rebnconv{level}")(x)
        x = down[self.levels]
        for level in range(self.levels - 1, 0, -1):
            x = getattr(self, f"rebnconv{level}d")(torch.cat([like(x, down[level]), down[level]], 1))
        return x + start


class U2Net(nn.Module):
    """Widths of encoder stages 1 to 6 and decoder stages 1 to 5: (inner, outputs) each."""

    def __init__(self, encoder, decoder):
        super().__init__()
        inputs = 3
        for number, (inner, outputs) in enumerate(encoder, start=1):
            setattr(self, f"stage{number}", Block(LEVELS[number], inputs, inner, outputs))
            inputs = outputs
        for number in range(5, 0, -1):
            inner, outputs = decoder[number - 1]
            block = Block(LEVELS[number], inputs + encoder[number - 1][1], inner, outputs)
            setattr(self, f"stage{number}d", block)
            inputs = outputs
        for number, (_, outputs) in enumerate([*decoder, encoder[-1]], start=1):
            setattr(self, f"side{number}", nn.Conv2d(outputs, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        down = {1: self.stage1(x)}
        for number in range(2, 7):
            down[number] = getattr(self, f"stage{number}")(pool(down[number - 1]))
        up = {6: down[6]}
        for number in range(5, 0, -1):
            joined = torch.cat([like(up[number + 1], down[number]), down[number]], 1)
            up[number] = getattr(self, f"stage{number}d")(joined)
        sides = [like(getattr(self, f"side{number}")(up[number]), x) for number in range(1, 7)]
        return torch.sigmoid(self.outconv(torch.cat(sides, 1)))[:, 0]
