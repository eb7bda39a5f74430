"""The ResNet of the tests' torch reference, with drawn weights."""

import torch

from benchmarks import draws
from tests.reference.torch_resnet import ResNet

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def drawn() -> ResNet:
    """The classifier, batch norm frozen."""
    network = ResNet(draws.CLASSES, blocks=(3, 4, 6, 3))
    arrays = {name: torch.from_numpy(array) for name, array in draws.classifier().items()}
    network.load_state_dict(arrays, strict=False)
    return network.eval()


def normalized(pictures: torch.Tensor) -> torch.Tensor:
    """uint8 (b, h, w, 3) -> float32 (b, 3, h, w), in memory NHWC."""
    return ((pictures.float() - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)
