"""A ResNet with bottlenecks and a multi-label head in torch, with torchvision's names.

Independent of the package, so that the two can disagree. Everything is NCHW.
"""

import torch
from torch import nn

# Output stride -> (stride and dilation of the first block, dilation of the other blocks) of layer1..4.
STAGES = {
    32: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (2, 1, 1)),
    16: ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 1)),
    8: ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 1, 2)),
}
POOLS = {
    "symmetric": {"padding": 1},
    "ceil": {"padding": 0, "ceil_mode": True},
    "symmetric_ceil": {"padding": 1, "ceil_mode": True},
}


class Block(nn.Module):
    """1x1, 3x3 and 1x1 to four times the width; the stride is on the 3x3, or on the first 1x1 ("caffe")."""

    def __init__(self, inputs, width, stride, dilation, layout):
        super().__init__()
        first, second = {"torchvision": (1, stride), "caffe": (stride, 1)}[layout]
        self.conv1 = nn.Conv2d(inputs, width, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=second, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride > 1 or inputs != 4 * width:
            projection = nn.Conv2d(inputs, 4 * width, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(4 * width))
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """Backbone, global average, linear head without a bias."""

    def __init__(
        self,
        classes,
        *,
        blocks,
        width=64,
        stem_width=64,
        layout="torchvision",
        pool="symmetric",
        output_stride=16,
        stages=None,
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, **POOLS[pool])
        inputs = stem_width
        stages = stages or STAGES[output_stride]
        for number, (count, (stride, first, others)) in enumerate(zip(blocks, stages, strict=True), start=1):
            stage = nn.Sequential()
            for index in range(count):
                stride_and_dilation = (stride, first) if index == 0 else (1, others)
                stage.append(Block(inputs, width, *stride_and_dilation, layout))
                inputs = 4 * width
            setattr(self, f"layer{number}", stage)
            width *= 2
        self.fc = nn.Linear(inputs, classes, bias=False)

    def features(self, x):
        """The features of every stage by its name; "stem" is after the pool."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outputs = {"stem": x}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            outputs[name] = x = getattr(self, name)(x)
        return outputs

    def forward(self, x):
        return self.fc(self.features(x)["layer4"].mean((2, 3)))


@torch.no_grad()
def randomized(network, seed):
    """The network with random weights, and batch norms of which nothing is 0 or 1, that keep the scale of features."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(parameter, low, high):
        parameter.copy_(torch.rand(parameter.shape, generator=generator) * (high - low) + low)

    for name, module in network.named_modules():
        match module:
            case nn.Conv2d():
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    uniform(module.bias, -0.3, 0.3)
            case nn.BatchNorm2d():
                # Small at the end of a block, as of a trained network: the sum over many blocks stays in scale.
                uniform(module.weight, *((0.1, 0.4) if name.endswith("bn3") else (0.6, 1.4)))
                module.weight.mul_(torch.where(torch.rand(module.weight.shape, generator=generator) < 0.1, -1, 1))
                uniform(module.bias, -0.3, 0.3)
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.6, 1.8)
            case nn.Linear():
                uniform(module.weight, -0.3, 0.3)
    return network
