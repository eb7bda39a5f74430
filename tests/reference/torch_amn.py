"""AMN in torch, on the ResNet beside it, its loss, its optimizer and its maps.

Independent of the package, so that the two can disagree. Everything is NCHW; pictures are alone, never padded; there is
no dropout.
"""

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from .torch_resnet import randomized as randomized_resnet


class AMN(nn.Module):
    """Every channel of the features times what the labels say, then four dilated convolutions, added."""

    def __init__(self, backbone, channels, classes):
        super().__init__()
        self.backbone = backbone
        backbone.fc = nn.Identity()
        self.labels = nn.Linear(classes, channels)
        self.activation = nn.ModuleList(
            nn.Conv2d(channels, classes + 1, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)
        )

    def forward(self, x, labels):
        x = self.backbone.features(x)["layer4"]
        x = x * self.labels(labels)[:, :, None, None]
        return torch.stack([convolution(x) for convolution in self.activation]).sum(0)


@torch.no_grad()
def randomized(network, seed):
    """As the ResNet's; the linear layer has a bias, too."""
    network, generator = randomized_resnet(network, seed), torch.Generator().manual_seed(seed)
    network.labels.bias.copy_(torch.rand(network.labels.bias.shape, generator=generator) * 2 - 0.5)
    return network


def loss(logits, labels, smoothing):
    """`logits` (b, C, h, w), `labels` int64 (b, h, w), 255: unsure; a mean of no pixels counts as 0."""
    channels = logits.shape[1]
    target = torch.full_like(logits, smoothing / (channels - 1))
    target.scatter_(1, torch.where(labels == 255, 0, labels)[:, None], 1 - smoothing)
    pixels = -(target * torch.log_softmax(logits, 1)).sum(1)
    parts = [pixels[labels == 0], pixels[(labels > 0) & (labels < 255)]]
    return sum(part.mean() for part in parts if len(part)) / 2


def adam(network, *, backbone_rate, head_rate, decay):
    """Torch's Adam, whose decay is added to the gradient; the first convolution and its norm are in no group."""
    backbone = [
        parameter for name, parameter in network.backbone.named_parameters() if not name.startswith(("conv1.", "bn1."))
    ]
    head = [*network.labels.parameters(), *network.activation.parameters()]
    groups = [{"params": backbone, "lr": backbone_rate}, {"params": head, "lr": head_rate}]
    return torch.optim.Adam(groups, weight_decay=decay)


@torch.no_grad()
def mean_logits(network, pictures, labels):
    """Logits at the size of the first of `pictures`, the mean over all of them and their mirror images: (C, H, W)."""
    size, total = pictures[0].shape[2:], 0
    for picture in pictures:
        logits = (network(picture, labels) + network(picture.flip(-1), labels).flip(-1)) / 2
        total = total + interpolate(logits, size, mode="bilinear", align_corners=False)[0]
    return total / len(pictures)


def maps(logits, classes, seed):
    """`logits` (C, H, W), `seed` (H, W), 0: background -> (n, H, W), for these classes, counted without background."""
    probabilities = torch.softmax(logits, 0).numpy()
    result = []
    for n in classes:
        one = probabilities[n + 1]
        stretched = (one - one.min()) / (one.max() - one.min() + 1e-5)
        result.append(np.where(seed == 0, one, stretched))
    return np.stack(result)
