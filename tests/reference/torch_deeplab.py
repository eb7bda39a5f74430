"""DeepLabV2 and DeepLabV3+ in torch, on the ResNet beside it.

Independent of the package, so that the two can disagree. Everything is NCHW; pictures are alone, never padded.
"""

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import adaptive_avg_pool2d, cross_entropy, interpolate

# As for `ResNet`: strides and dilations of the stages.
MSRA_8 = ((1, 1, 1), (2, 1, 1), (1, 2, 2), (1, 4, 4))
TORCHVISION_16 = ((1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2))
TORCHVISION_8 = ((1, 1, 1), (2, 1, 1), (1, 1, 2), (1, 2, 4))


class DeepLabV2(nn.Module):
    """Four dilated convolutions, added; three scales, of which the best counts."""

    def __init__(self, backbone, channels, classes):
        super().__init__()
        self.backbone = backbone
        backbone.fc = nn.Identity()
        self.head = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in (6, 12, 18, 24)
        )

    def one_scale(self, x):
        x = self.backbone.features(x)["layer4"]
        return torch.stack([convolution(x) for convolution in self.head]).sum(0)

    def forward(self, x):
        """Logits at 1, 0.75, 0.5 and their maximum."""
        logits = [self.one_scale(x)]
        for scale in (0.75, 0.5):
            smaller = interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            logits.append(self.one_scale(smaller))
        same = [interpolate(one, logits[0].shape[2:], mode="bilinear", align_corners=False) for one in logits]
        return [*logits, torch.stack(same).max(0).values]


def conv_norm_relu(inputs, outputs, size, dilation=1):
    padding = dilation * (size // 2)
    convolution = nn.Conv2d(inputs, outputs, size, padding=padding, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Pyramid(nn.Module):
    """The concatenation of five views of the features, mixed."""

    def __init__(self, channels, rates):
        super().__init__()
        self.local = nn.ModuleList([conv_norm_relu(channels, 256, 1)])
        self.local.extend(conv_norm_relu(channels, 256, 3, rate) for rate in rates)
        self.picture = conv_norm_relu(channels, 256, 1)
        self.mix = conv_norm_relu(5 * 256, 256, 1)

    def forward(self, x):
        picture = self.picture(adaptive_avg_pool2d(x, 1))
        picture = interpolate(picture, x.shape[2:], mode="bilinear", align_corners=False)
        return self.mix(torch.cat([*(one(x) for one in self.local), picture], 1))


class DeepLabV3Plus(nn.Module):
    """Without dropout."""

    def __init__(self, backbone, channels, layer1_channels, rates, classes):
        super().__init__()
        self.backbone = backbone
        backbone.fc = nn.Identity()
        self.pyramid = Pyramid(channels, rates)
        self.finer = conv_norm_relu(layer1_channels, 48, 1)
        self.decoder = nn.Sequential(conv_norm_relu(256 + 48, 256, 3), conv_norm_relu(256, 256, 3))
        self.classifier = nn.Conv2d(256, classes, 1)

    def forward(self, x):
        features = self.backbone.features(x)
        finer = self.finer(features["layer1"])
        x = interpolate(self.pyramid(features["layer4"]), finer.shape[2:], mode="bilinear", align_corners=False)
        return self.classifier(self.decoder(torch.cat([x, finer], 1)))


def resized_labels(labels, height, width):
    """uint8 (b, H, W) to the nearest int64 (b, height, width), as PIL does it."""
    resized = [Image.fromarray(one).resize((width, height), Image.Resampling.NEAREST) for one in labels]
    return torch.from_numpy(np.stack(resized).astype(np.int64))


def four_losses(logits, labels):
    """The sum over the logits of every size; `labels` are uint8 (b, H, W), of the picture's size."""
    sizes = [one.shape[2:] for one in logits]
    targets = [resized_labels(labels, *size) for size in sizes]
    return sum(cross_entropy(one, target, ignore_index=255) for one, target in zip(logits, targets, strict=True))


def full_size_loss(logits, labels):
    """`labels` are uint8 (b, H, W)."""
    logits = interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return cross_entropy(logits, torch.from_numpy(labels.astype(np.int64)), ignore_index=255)


def parameter_groups(network, rate, decay, *, with_norms):
    """The groups of SGD: the backbone; the head, ten times faster; its biases, twenty times, without decay.

    V2's batch norms are in no group; else (`with_norms`) they learn as the weights around them.
    """
    weights, fast, biases = [], [], []
    for module_name, module in network.named_modules():
        is_backbone, is_norm = module_name.startswith("backbone"), isinstance(module, nn.BatchNorm2d)
        if is_norm and not with_norms:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            is_bias = name == "bias" and not is_norm
            (weights if is_backbone else biases if is_bias else fast).append(parameter)
    return [
        {"params": weights, "first_rate": rate, "weight_decay": decay},
        {"params": fast, "first_rate": 10 * rate, "weight_decay": decay},
        {"params": biases, "first_rate": 20 * rate, "weight_decay": 0.0},
    ]


def train(network, loss_of, parts, *, steps, rate, decay, hold, with_norms):
    """Steps of SGD on the same parts of a batch, whose gradients are accumulated; yields the loss of every step.

    Momentum 0.9; the rate falls with the power 0.9 of what is left, every `hold` steps. The modes of the norms are left
    as they are.
    """
    groups = parameter_groups(network, rate, decay, with_norms=with_norms)
    sgd = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    for step in range(steps):
        if step % hold == 0:
            for group in sgd.param_groups:
                group["lr"] = group["first_rate"] * (1 - step / steps) ** 0.9
        sgd.zero_grad()
        total = 0.0
        for part in parts:
            loss = loss_of(network, part) / len(parts)
            loss.backward()
            total += loss.item()
        sgd.step()
        yield total
