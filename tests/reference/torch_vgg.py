"""VGG-16 in torch, in both layouts, with psa's names.

Independent of the package, so that the two can disagree. Everything is NCHW.
"""

from torch import nn
from torch.nn import functional

COUNTS = (2, 2, 3, 3, 3)


class VGG16(nn.Module):
    """Thirteen convolutions, and the head of a classifier."""

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
