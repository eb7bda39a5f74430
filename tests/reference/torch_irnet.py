"""IRNet in torch, on the ResNet beside it.

Independent of the package, so that the two can disagree. Everything is NCHW; pictures are alone, never padded.
"""

import torch
from torch import nn

from .torch_resnet import randomized as randomized_resnet


def projection(inputs, outputs, groups, upsample=1):
    """1x1 without bias, group norm, upsampling by a factor, ReLU: in this order."""
    layers = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.GroupNorm(groups, outputs)]
    if upsample > 1:
        layers.append(nn.Upsample(scale_factor=upsample, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers, nn.ReLU())


class Edge(nn.Module):
    def __init__(self, channels, strides):
        super().__init__()
        for name, inputs in channels.items():
            setattr(self, name, projection(inputs, 32, 4, strides[name] // 4))
        self.logit = nn.Conv2d(160, 1, 1)

    def forward(self, x1, x2, x3, x4, x5):
        height, width = x2.shape[2:]
        parts = [self.stem(x1), self.layer1(x2), self.layer2(x3), self.layer3(x4), self.layer4(x5)]
        return self.logit(torch.cat([part[..., :height, :width] for part in parts], 1))


class Displacement(nn.Module):
    def __init__(self, channels, strides):
        super().__init__()
        self.stem = projection(channels["stem"], 64, 8)
        self.layer1 = projection(channels["layer1"], 128, 16)
        self.layer2 = projection(channels["layer2"], 256, 16)
        self.layer3 = projection(channels["layer3"], 256, 16, strides["layer3"] // 8)
        self.layer4 = projection(channels["layer4"], 256, 16, strides["layer4"] // 8)
        self.coarse = projection(768, 256, 16, 2)
        self.fine = projection(448, 256, 16)
        self.vector = nn.Conv2d(256, 2, 1, bias=False)

    def forward(self, x1, x2, x3, x4, x5):
        dp1, dp2, dp3, dp4, dp5 = self.stem(x1), self.layer1(x2), self.layer2(x3), self.layer3(x4), self.layer4(x5)
        dp4, dp5 = (one[..., : dp3.shape[2], : dp3.shape[3]] for one in (dp4, dp5))
        dp6 = self.coarse(torch.cat([dp3, dp4, dp5], 1))[..., : dp2.shape[2], : dp2.shape[3]]
        return self.vector(self.fine(torch.cat([dp1, dp2, dp6], 1)))


class IRNet(nn.Module):
    """`strides` are those of the backbone's stages, in pixels."""

    def __init__(self, backbone, *, stem_width, width, strides):
        super().__init__()
        self.backbone = backbone
        backbone.fc = nn.Identity()
        names = ("stem", "layer1", "layer2", "layer3", "layer4")
        channels = dict(zip(names, (stem_width, 4 * width, 8 * width, 16 * width, 32 * width), strict=True))
        strides = dict(zip(names, strides, strict=True))
        self.edge, self.displacement = Edge(channels, strides), Displacement(channels, strides)

    def forward(self, x):
        """Edge logits (b, 1, h/4, w/4) and displacements (b, 2, h/4, w/4)."""
        taps = [tap.detach() for tap in self.backbone.features(x).values()]
        return self.edge(*taps), self.displacement(*taps)


@torch.no_grad()
def randomized(network, seed):
    """As the ResNet's; group norms shift and scale, too."""
    network, generator = randomized_resnet(network, seed), torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
            module.bias.copy_(torch.rand(module.bias.shape, generator=generator) - 0.5)
    return network


def edge_probabilities(network, x):
    """The mean logit over a picture and its mirror image, as a probability: (b, h/4, w/4)."""
    logits = network(x)[0] / 2 + network(x.flip(-1))[0].flip(-1) / 2
    return torch.sigmoid(logits)[:, 0]
