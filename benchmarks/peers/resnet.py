"""The ResNet of the tests' torch reference, with drawn weights."""

import torch

from benchmarks import draws
from tests.reference.torch_resnet import ResNet

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def drawn(blocks: tuple[int, ...] = (3, 4, 6, 3), width: int = 64) -> ResNet:
    """The classifier, batch norm frozen."""
    network = ResNet(draws.CLASSES, blocks=blocks, width=width, stem_width=width)
    arrays = {name: torch.from_numpy(array) for name, array in draws.classifier(blocks, width).items()}
    network.load_state_dict(arrays, strict=False)
    return network.eval()


def normalized(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w), in memory NHWC."""
    mean, std = (torch.tensor(values, device=pictures.device) for values in (MEAN, STD))
    return ((pictures.float() - mean) / std).permute(0, 3, 1, 2)
