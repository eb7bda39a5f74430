"""A WideResNet-38 in torch, with psa's names, and MCTformer's segmentation network.

Independent of the package, so that the two can disagree. Everything is NCHW.
"""

from torch import nn
from torch.nn.functional import cross_entropy, interpolate

# Name, type, channels in, inside and out (of a width of 64), stride, dilations of the 3x3 convolutions.
TABLE = [
    ("b2", "basic", (64, 128, 128), 2, (1, 1)),
    ("b2_1", "basic", (128, 128, 128), 1, (1, 1)),
    ("b2_2", "basic", (128, 128, 128), 1, (1, 1)),
    ("b3", "basic", (128, 256, 256), 2, (1, 1)),
    ("b3_1", "basic", (256, 256, 256), 1, (1, 1)),
    ("b3_2", "basic", (256, 256, 256), 1, (1, 1)),
    ("b4", "basic", (256, 512, 512), 2, (1, 1)),
    ("b4_1", "basic", (512, 512, 512), 1, (1, 1)),
    ("b4_2", "basic", (512, 512, 512), 1, (1, 1)),
    ("b4_3", "basic", (512, 512, 512), 1, (1, 1)),
    ("b4_4", "basic", (512, 512, 512), 1, (1, 1)),
    ("b4_5", "basic", (512, 512, 512), 1, (1, 1)),
    ("b5", "basic", (512, 512, 1024), 1, (1, 2)),
    ("b5_1", "basic", (1024, 512, 1024), 1, (2, 2)),
    ("b5_2", "basic", (1024, 512, 1024), 1, (2, 2)),
    ("b6", "bottleneck", (1024, 512, 1024, 2048), 1, (4,)),
    ("b7", "bottleneck", (2048, 1024, 2048, 4096), 1, (4,)),
]


def conv(inputs, outputs, size, stride=1, dilation=1):
    padding = dilation if size == 3 else 0
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding, dilation=dilation, bias=False)


class Basic(nn.Module):
    def __init__(self, inputs, inside, outputs, stride, dilations):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = conv(inputs, inside, 3, stride, dilations[0])
        self.bn_branch2b1 = nn.BatchNorm2d(inside)
        self.conv_branch2b1 = conv(inside, outputs, 3, 1, dilations[1])
        self.same = inputs == outputs and stride == 1
        if not self.same:
            self.conv_branch1 = conv(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x):
        u = self.relu(self.bn_branch2a(x))
        y = self.conv_branch2b1(self.relu(self.bn_branch2b1(self.conv_branch2a(u))))
        return y + (x if self.same else self.conv_branch1(u)), u


class Bottleneck(nn.Module):
    def __init__(self, inputs, first, second, outputs, dilation):
        super().__init__()
        self.bn_branch2a = nn.BatchNorm2d(inputs)
        self.conv_branch2a = conv(inputs, first, 1)
        self.bn_branch2b1 = nn.BatchNorm2d(first)
        self.conv_branch2b1 = conv(first, second, 3, 1, dilation)
        self.bn_branch2b2 = nn.BatchNorm2d(second)
        self.conv_branch2b2 = conv(second, outputs, 1)
        self.conv_branch1 = conv(inputs, outputs, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        u = self.relu(self.bn_branch2a(x))
        y = self.relu(self.bn_branch2b1(self.conv_branch2a(u)))
        y = self.relu(self.bn_branch2b2(self.conv_branch2b1(y)))
        return self.conv_branch2b2(y) + self.conv_branch1(u), u


class WideResNet38(nn.Module):
    """The backbone, and the head of a classifier."""

    def __init__(self, classes, *, width):
        super().__init__()
        self.conv1a = conv(3, width, 3)
        for name, kind, channels, stride, dilations in TABLE:
            channels = [count * width // 64 for count in channels]
            if kind == "basic":
                setattr(self, name, Basic(*channels, stride, dilations))
            else:
                setattr(self, name, Bottleneck(*channels, *dilations))
        self.bn7 = nn.BatchNorm2d(64 * width)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(64 * width, classes, bias=False)

    def features(self, x):
        """conv3 to conv6 by name."""
        x, taps = self.conv1a(x), {}
        for name, *_ in TABLE:
            x, taps[name] = getattr(self, name)(x)
        stages = {"conv3": taps["b4"], "conv4": taps["b5"], "conv5": taps["b6"]}
        return stages | {"conv6": self.relu(self.bn7(x))}


class Segmentation(WideResNet38):
    """MCTformer's: conv6, after its ReLU, and two 3x3 convolutions of dilation 12."""

    def __init__(self, classes, *, width, inside):
        super().__init__(classes, width=width)
        del self.fc
        self.fc8_seg_conv1 = nn.Conv2d(64 * width, inside, 3, padding=12, dilation=12)
        self.fc8_seg_conv2 = nn.Conv2d(inside, classes, 3, padding=12, dilation=12)

    def forward(self, x):
        x = self.features(x)["conv6"]
        return self.fc8_seg_conv2(self.relu(self.fc8_seg_conv1(x)))

    def loss(self, x, labels):
        """Cross entropy at the size of the crop; 255 is no label."""
        logits = interpolate(self(x), labels.shape[1:], mode="bilinear", align_corners=False)
        return cross_entropy(logits, labels, ignore_index=255)
