"""The same networks in torch, on the device: training steps, and photographs to maps.

A part of `benchmarks.accelerator`. TF32 is on, as it is JAX's default; a step of bfloat16 is one of autocast.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, interpolate, normalize

from benchmarks import draws
from benchmarks.accelerator.part import Programs, Row, timed
from benchmarks.accelerator.sizes import Sizes
from benchmarks.peers.resnet import drawn, normalized
from tests.reference.torch_deeplab import MSRA_8, DeepLabV2
from tests.reference.torch_resnet import ResNet, randomized

# Way: (channels last, compiled, bfloat16).
WAYS = {
    "channels last, bfloat16": (True, False, True),
    "compiled, channels last, bfloat16": (True, True, True),
    "eager, float32": (False, False, False),
    "channels last, float32": (True, False, False),
    "compiled, channels last, float32": (True, True, False),
}


def programs(sizes: Sizes) -> Programs:
    """Every network in every way."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    if device().type == "cpu":  # in the short form, where threads would wait for each other longer than they work
        torch.set_num_threads(1)
    height, width = sizes.picture
    kinds = {
        f"classifier step, {sizes.batch} pictures of {sizes.crop}x{sizes.crop}": _classifier,
        f"photographs of {width}x{height} to maps, {len(sizes.scales)} scales with mirror images, the network": _maps,
        f"DeepLabV2 step, {sizes.batch} pictures of {sizes.masked_crop}x{sizes.masked_crop}": _segmentation,
    }
    for kind, work in kinds.items():
        for way, (_, is_compiled, _) in WAYS.items():
            if sizes.compiles_torch or not is_compiled:
                yield f"{kind}, torch, {way}", partial(work, sizes, way)


def device() -> torch.device:
    """The GPU or, without one, the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _prepared(network: torch.nn.Module, way: str) -> torch.nn.Module:
    return network.to(device(), memory_format=torch.channels_last if WAYS[way][0] else torch.contiguous_format)


def _images(pictures: torch.Tensor, way: str) -> torch.Tensor:
    images = normalized(pictures)
    return images if WAYS[way][0] else images.contiguous()


def _autocast(way: str):
    return torch.autocast(device().type, torch.bfloat16) if WAYS[way][2] else nullcontext()


def _maybe_compiled(function: Callable, way: str) -> Callable:
    return torch.compile(function) if WAYS[way][1] else function


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def _classifier(sizes: Sizes, way: str) -> Row:
    """Batch norm, conv1 and bn1 frozen, the head ten times faster."""
    network = _prepared(drawn(sizes.blocks, sizes.width), way)
    for part in (network.conv1, network.bn1):
        part.requires_grad_(False)
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    groups = [
        {"params": [parameter for stage in stages for parameter in stage.parameters()], "lr": 1e-3},
        {"params": [network.fc.weight], "lr": 1e-2},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.0, momentum=1e-4, weight_decay=1e-4)
    pictures = torch.from_numpy(draws.images(sizes.batch, sizes.crop)).to(device())
    labels = torch.from_numpy(draws.labels(sizes.batch)).to(device())

    def loss_of(pictures, labels):
        with _autocast(way):
            logits = network(_images(pictures, way))
        return binary_cross_entropy_with_logits(logits.float(), labels)

    return _step(sizes, _maybe_compiled(loss_of, way), optimizer, pictures, labels)


def _segmentation(sizes: Sizes, way: str) -> Row:
    """Batch norm frozen, the sum of the losses of three scales and of their maximum."""
    options = {"width": sizes.width, "stem_width": sizes.width, "layout": "caffe", "pool": "symmetric_ceil"}
    backbone = randomized(ResNet(1, blocks=sizes.deep_blocks, stages=MSRA_8, **options), seed=0)
    network = _prepared(DeepLabV2(backbone, 32 * sizes.width, draws.CLASSES + 1).eval(), way)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.requires_grad_(False)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-6, momentum=0.9, weight_decay=5e-4)
    pictures = torch.from_numpy(draws.images(sizes.batch, sizes.masked_crop)).to(device())
    labels = torch.randint(0, draws.CLASSES + 1, pictures.shape[:3], device=device())

    def loss_of(pictures, labels):
        with _autocast(way):
            logits = network(_images(pictures, way))
        targets = [interpolate(labels[:, None].float(), one.shape[2:], mode="nearest-exact") for one in logits]
        pairs = zip(logits, targets, strict=True)
        return sum(cross_entropy(one.float(), target[:, 0].long(), ignore_index=255) for one, target in pairs)

    return _step(sizes, _maybe_compiled(loss_of, way), optimizer, pictures, labels)


def _step(
    sizes: Sizes, loss_of: Callable, optimizer: torch.optim.Optimizer, pictures: torch.Tensor, labels: torch.Tensor
) -> Row:
    losses = []

    def run(times: int) -> None:
        for _ in range(times):
            optimizer.zero_grad()
            loss = loss_of(pictures, labels)
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
        _wait()

    facts, row = {}, timed(run, least=sizes.seconds)
    if device().type == "cuda":
        facts["peak, GB"] = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.reset_peak_memory_stats()
    return row | {"pictures": len(pictures), "facts": {"first loss": losses[0], **facts}}


def _maps(sizes: Sizes, way: str) -> Row:
    """CAM, LPCAM-F and LPCAM on the grid; as many pictures a batch as in infer.py, without padding."""
    channels = 32 * sizes.width
    network = _prepared(drawn(sizes.blocks, sizes.width), way)
    of_class, of_context = (normalize(torch.from_numpy(kind), dim=-1).mean(1) for kind in draws.prototypes(channels))
    kernels = torch.cat([of_class, of_class - of_context])[:, :, None, None].to(device())
    head = network.fc.weight[:, :, None, None]

    def maps_of(pictures):
        with _autocast(way):
            features = network.features(_images(torch.cat([pictures, pictures.flip(2)]), way))["layer4"]
        features = features.float()
        straight, mirrored = features.chunk(2)
        cam = torch.relu(torch.conv2d(straight, head)) + torch.relu(torch.conv2d(mirrored.flip(3), head))
        both = straight + mirrored.flip(3)
        lpcam = torch.relu(torch.conv2d(both, kernels) / both.norm(dim=1, keepdim=True))
        return cam, lpcam, features.mean((2, 3)) @ head[:, :, 0, 0].T

    function, batches = _maybe_compiled(maps_of, way), []
    for scale in sizes.scales:
        height, width = (round(length * scale) for length in sizes.picture)
        count = min(max(sizes.batch_pixels[0] // (2 * height * width), 1), sizes.pictures)
        pictures = torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, device=device())
        batches += [pictures] * -(-sizes.pictures // count)

    def run(times: int) -> None:
        with torch.inference_mode():
            for _ in range(times):
                for pictures in batches:
                    function(pictures)
            _wait()

    return timed(run, least=sizes.seconds) | {"pictures": sizes.pictures, "facts": {"batches": len(batches)}}
