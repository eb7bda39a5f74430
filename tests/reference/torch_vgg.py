"""VGG-16 with a multi-label head in torch, in both layouts, with psa's names.

Written from the facts about the networks alone (section 14.4 of the facts), without sight of the package, so that the
two can disagree. Everything is NCHW.
"""

import torch
from torch import nn
from torch.nn import functional

COUNTS = (2, 2, 3, 3, 3)


class VGG16(nn.Module):
    """Thirteen convolutions, global average, linear head without a bias."""

    def __init__(self, classes, *, width, layout):
        super().__init__()
        self.layout, inputs = layout, 3
        for block, count in enumerate(COUNTS, start=1):
            outputs = width * min(2 ** (block - 1), 8)
            reach = 2 if layout == "psa" and block == 5 else 1
            for number in range(1, count + 1):
                conv = nn.Conv2d(inputs, outputs, 3, padding=reach, dilation=reach)
                setattr(self, f"conv{block}_{number}", conv)
                inputs = outputs
        self.fc8 = nn.Conv2d(inputs, classes, 1, bias=False)
        self.relu = nn.ReLU()

    def pool(self, x, block):
        """After a block."""
        if self.layout == "plain":
            return functional.max_pool2d(x, 2, 2, ceil_mode=True)
        return functional.max_pool2d(x, 3, 2 if block < 4 else 1, padding=1)

    def features(self, x):
        """The output of every block by its name."""
        outputs = {}
        for block, count in enumerate(COUNTS, start=1):
            x = self.pool(x, block - 1) if block > 1 else x
            for number in range(1, count + 1):
                x = self.relu(getattr(self, f"conv{block}_{number}")(x))
            outputs[f"block{block}"] = x
        return outputs

    def forward(self, x):
        return self.fc8(self.features(x)["block5"]).mean((2, 3))


def torchvision(classes=1000):
    """The layers of torchvision's VGG-16 with its names, and no more than a stub of its classifier."""
    layers, inputs = [], 3
    for block, count in enumerate(COUNTS):
        for _ in range(count):
            outputs = 64 * min(2**block, 8)
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
            inputs = outputs
        layers.append(nn.MaxPool2d(2, 2))
    return nn.ModuleDict({"features": nn.Sequential(*layers), "classifier": nn.Sequential(nn.Linear(8, classes))})


@torch.no_grad()
def randomized(network, seed):
    """The network with random weights and biases that keep the scale of features."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        scale = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.2
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return network
