"""ResNet-50 in torch: the forward pass of the features, and a training step."""

import torch

from benchmarks import draws
from benchmarks.contestant import Ready
from benchmarks.peers.resnet import drawn, normalized


def _laid_out(network, how: str):
    return network if how == "eager" else network.to(memory_format=torch.channels_last)


def forward(batch: int, side: int, how: str) -> Ready:
    """Pictures to features; how: eager, channels_last, compiled, or frozen: compiled with constant weights."""
    network = _laid_out(drawn(), how)
    pictures = torch.from_numpy(draws.images(batch, side))

    def features(pictures):
        images = normalized(pictures)
        return network.features(images.contiguous() if how == "eager" else images)["layer4"]

    torch._inductor.config.freezing = how == "frozen"
    function = torch.compile(features) if how in ("compiled", "frozen") else features

    def run():
        with torch.no_grad():
            return function(pictures)

    return Ready(run, lambda result: {"features": result.permute(0, 2, 3, 1).numpy()})


def step(batch: int, side: int, how: str) -> Ready:
    """A step of SGD with frozen batch norm, conv1 and bn1 frozen, the head ten times faster."""
    network = _laid_out(drawn(), how)
    pictures, labels = torch.from_numpy(draws.images(batch, side)), torch.from_numpy(draws.labels(batch))
    for part in (network.conv1, network.bn1):
        part.requires_grad_(False)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    groups = [
        {"params": [parameter for stage in stages for parameter in stage.parameters()], "lr": 1e-3},
        {"params": [network.fc.weight], "lr": 1e-2},
    ]
    optimizer, losses = torch.optim.SGD(groups, lr=0.0, momentum=1e-4, weight_decay=1e-4), []

    def loss_of(pictures, labels):
        images = normalized(pictures)
        logits = network(images.contiguous() if how == "eager" else images)
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)

    function = torch.compile(loss_of) if how == "compiled" else loss_of

    def run():
        optimizer.zero_grad()
        loss = function(pictures, labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    return Ready(run, lambda _: {"losses": losses[:2]})
