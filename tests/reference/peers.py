"""Torch networks that our backbones must equal: transcriptions of this folder, and those of timm and transformers.

Of each: ours for it, how it is made, how its stages are had, and how its file is written. A new backbone needs one.
"""

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from torch.nn import functional

from lpcam_jax.backbones.config import BackboneConfig, ViTConfig
from lpcam_jax.backbones.swin import SwinConfig
from lpcam_jax.backbones.vgg import VGG16Config
from lpcam_jax.backbones.wideresnet import WideResNet38Config

from . import torch_vgg, torch_vit, torch_wideresnet

Stages = Callable[[nn.Module, torch.Tensor], Sequence[torch.Tensor]]


def write_state_dict(network: nn.Module, folder: Path) -> Path:
    """As networks are usually published."""
    torch.save(network.state_dict(), folder / "weights.pth")
    return folder / "weights.pth"


def save_pretrained(network: nn.Module, folder: Path) -> Path:
    """As transformers does, under the names of the files on the Hub."""
    network.save_pretrained(folder)
    return folder / "model.safetensors"


class Peer(NamedTuple):
    """A network to be equal to.

    Attributes:
        config: ours for it.
        make: () -> torch's.
        stages: (network, pictures (b, 3, h, w)) -> the outputs of its stages (b, d, h, w), as many as it tells.
        sizes: pictures to compare.
        write: (network, folder) -> its file.
        positions_of_tokens: name of the parameter that begins with positions of tokens, and how many: ours are a part
            of the tokens, so that they have no gradient of their own.
        gain: of the random weights.
    """

    config: BackboneConfig
    make: Callable[[], nn.Module]
    stages: Stages
    sizes: tuple[tuple[int, int], ...]
    write: Callable[[nn.Module, Path], Path] = write_state_dict
    positions_of_tokens: tuple[str, int] = ("", 0)
    gain: float = 1.0


@torch.no_grad()
def randomized(network: nn.Module, *, gain: float) -> nn.Module:
    """Values with which everything matters: weights that keep the scale, the rest of about 1, norms that turn signs."""
    generator = torch.Generator().manual_seed(0)

    def uniform(values: torch.Tensor, low: float, high: float) -> None:
        values.copy_(torch.rand(values.shape, generator=generator) * (high - low) + low)

    for name, parameter in network.named_parameters():
        scale = gain * parameter[0].numel() ** -0.5 if name.endswith("weight") and parameter.ndim > 1 else 0.5
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
        if parameter.ndim == 1 and name.endswith(("weight", "gamma", "lambda1")):
            parameter += 1
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            uniform(module.weight, 0.6, 1.4)
            module.weight.mul_(torch.where(torch.rand(module.weight.shape, generator=generator) < 0.1, -1, 1))
            uniform(module.bias, -0.3, 0.3)
            uniform(module.running_mean, -0.5, 0.5)
            uniform(module.running_var, 0.6, 1.8)
    return network


def whole(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Pictures padded to whole patches, for networks that leave out what is none."""
    height, width = images.shape[2:]
    return functional.pad(images, (0, -width % patch, 0, -height % patch))


def maps_of(tokens: Sequence[torch.Tensor], images: torch.Tensor, patch: int) -> list[torch.Tensor]:
    """The patches, which are the last of the tokens (b, n, d), as maps."""
    height, width = (-(-length // patch) for length in images.shape[2:])
    return [x[:, -height * width :].transpose(1, 2).unflatten(2, (height, width)) for x in tokens]


def channels_first(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [x.permute(0, 3, 1, 2) for x in maps]


# Convolutions


def vgg16(layout: str) -> Peer:
    width = 6
    return Peer(
        VGG16Config(width=width, layout=layout),
        partial(torch_vgg.VGG16, 3, width=width, layout=layout),
        lambda network, images: list(network.features(images).values())[-3:],
        ((33, 35), (16, 24), (2, 17)),
        gain=2**0.5,
    )


WIDERESNET38 = Peer(
    WideResNet38Config(width=4),
    partial(torch_wideresnet.WideResNet38, 3, width=4),
    lambda network, images: list(network.features(images).values()),
    ((17, 19), (16, 24), (2, 9)),
)


# Vision transformers

OURS = {"dim": 24, "depth": 5, "head_dim": 12, "position_grid": 4}
IN_CLIP = {"pre_norm": True, "activation": "quick_gelu", "norm_epsilon": 1e-5}
AFTER = (1, 2, 3, 5)
"""blocks, of five, after which there is a stage"""


def sizes_of(patch: int) -> tuple[tuple[int, int], ...]:
    """That of the stored positions; a few patches; a part of one; and no multiples of it."""
    patches = ((4, 4), (3, 5), (0.4, 1), (7.3, 4.6))
    return tuple((max(round(h * patch), 1), max(round(w * patch), 1)) for h, w in patches)


def transcribed(network: type, *, patch: int, resize: str, ours: dict[str, Any], **options: Any) -> Peer:
    names = {torch_vit.CLIP: "visual.positional_embedding", torch_vit.ViT: "pos_embed"}
    return Peer(
        ViTConfig(**OURS, patch=patch, position_resize=resize, **ours),
        partial(network, dim=24, depth=5, heads=2, grid=4, patch=patch, resize=resize, **options),
        lambda network, images: channels_first(network(images)),
        sizes_of(patch),
        positions_of_tokens=(names[network], 2 if options.get("distilled") else 1),
    )


def of_timm(*, ours: dict[str, Any], **options: Any) -> Peer:
    def make() -> nn.Module:
        return package("timm.models.vision_transformer").VisionTransformer(
            img_size=64,
            patch_size=16,
            embed_dim=24,
            depth=5,
            num_heads=2,
            num_classes=3,
            dynamic_img_size=True,
            dynamic_img_pad=True,
            **options,
        )

    def stages(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        last, maps = network.forward_intermediates(images, indices=[number - 1 for number in AFTER])
        return [*maps[:-1], *maps_of([last], images, 16)]

    positions = ("pos_embed", 0 if options.get("no_embed_class") else 1)
    return Peer(ViTConfig(**OURS, **ours), make, stages, sizes_of(16), positions_of_tokens=positions)


def of_transformers(kind: str, *, resize: str, ours: dict[str, Any], model: str = "Model", **options: Any) -> Peer:
    patch = 16

    def make() -> nn.Module:
        transformers = package("transformers")
        config = getattr(transformers, f"{kind}Config")(
            hidden_size=24,
            num_hidden_layers=5,
            num_attention_heads=2,
            intermediate_size=96,
            image_size=4 * patch,
            patch_size=patch,
            **options,
        )
        return getattr(transformers, f"{kind}{model}")(config)

    def stages(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
        resized = {} if kind.startswith("Dinov2") else {"interpolate_pos_encoding": True}
        outputs = network(whole(images, patch), output_hidden_states=True, **resized)
        last = outputs.last_hidden_state
        # CLIP's last norm is only for its token.
        last = network.post_layernorm(last) if kind.startswith("CLIP") else last
        return maps_of([*(outputs.hidden_states[number] for number in AFTER[:-1]), last], images, patch)

    name = "embeddings.position_embedding.weight" if kind.startswith("CLIP") else "embeddings.position_embeddings"
    return Peer(
        ViTConfig(**OURS, patch=patch, position_resize=resize, **ours),
        make,
        stages,
        sizes_of(patch),
        write=save_pretrained,
        positions_of_tokens=(name, 2 if kind == "DeiT" else 1),
    )


# Swin transformers

SWIN = {"dim": 8, "depths": (2, 1, 2, 2), "head_dim": 4, "mlp_ratio": 2}


def swin_of_timm() -> nn.Module:
    return package("timm.models.swin_transformer").SwinTransformer(
        img_size=64,
        embed_dim=8,
        depths=SWIN["depths"],
        num_heads=(2, 4, 8, 16),
        window_size=2,
        mlp_ratio=2,
        num_classes=3,
        always_partition=True,
        strict_img_size=False,
        dynamic_img_size=True,
    )


def stages_of_timm(network: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    last, maps = network.forward_intermediates(whole(images, 4))
    return [*maps[:-1], *channels_first([last])]


def swin_of_transformers() -> nn.Module:
    transformers = package("transformers")
    config = transformers.SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=list(SWIN["depths"]),
        num_heads=[2, 4, 8, 16],
        window_size=3,
        mlp_ratio=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    return transformers.SwinBackbone(config)


def package(name: str) -> Any:
    """A module of timm or transformers; a skip if it is not installed.

    Both import torchvision for what is not used here. Built for CUDA and beside a torch for CPUs, it misses operators:
    they are declared for it, without a body.
    """
    try:
        pytest.importorskip("torchvision", reason="pip install -e '.[parity]'")
    except RuntimeError:
        for missing in ("nms", "qnms"):
            torch.library.define(f"torchvision::{missing}", "(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        importlib.import_module("torchvision")
    return pytest.importorskip(name, reason="pip install -e '.[parity]'")


WITH_REGISTERS = {"layer_scale": True, "tokens": 5}
PEERS = {
    "VGG-16": vgg16("plain"),
    "VGG-16 of psa": vgg16("psa"),
    "WideResNet-38": WIDERESNET38,
    "DeiT": transcribed(torch_vit.ViT, patch=16, resize="antialiased", ours={}),
    "DeiT, distilled": transcribed(torch_vit.ViT, patch=8, resize="antialiased", distilled=True, ours={"tokens": 2}),
    "DINOv2": transcribed(torch_vit.ViT, patch=14, resize="offset", layer_scale=True, ours={"layer_scale": True}),
    "DINOv2 with registers": transcribed(
        torch_vit.ViT, patch=14, resize="antialiased", layer_scale=True, registers=4, ours=WITH_REGISTERS
    ),
    "CLIP": transcribed(torch_vit.CLIP, patch=16, resize="bicubic", ours=IN_CLIP),
    "DeiT of timm": of_timm(ours={}),
    "DINOv2 of timm": of_timm(init_values=0.5, ours={"layer_scale": True}),
    "DINOv2 with registers of timm": of_timm(init_values=0.5, reg_tokens=4, no_embed_class=True, ours=WITH_REGISTERS),
    "CLIP of timm": of_timm(pre_norm=True, ours={"pre_norm": True}),
    "ViT of transformers": of_transformers("ViT", resize="bicubic", layer_norm_eps=1e-6, ours={}),
    "DeiT of transformers": of_transformers("DeiT", resize="bicubic", layer_norm_eps=1e-6, ours={"tokens": 2}),
    "DINOv2 of transformers": of_transformers("Dinov2", resize="bicubic", ours={"layer_scale": True}),
    "DINOv2 with registers of transformers": of_transformers(
        "Dinov2WithRegisters", resize="antialiased", ours=WITH_REGISTERS
    ),
    "CLIP of transformers": of_transformers("CLIPVision", resize="bicubic", ours=IN_CLIP),
    # Where windows do not fill up a map, timm rolls it before it is padded; Microsoft and the others afterwards.
    "Swin of timm": Peer(SwinConfig(**SWIN, window=2), swin_of_timm, stages_of_timm, ((64, 64), (61, 126), (128, 64))),
    "Swin of transformers": Peer(
        SwinConfig(**SWIN, window=3, stage_norms=True),
        swin_of_transformers,
        lambda network, images: network(images).feature_maps,
        ((48, 96), (37, 50), (3, 7), (96, 41)),
        write=save_pretrained,
    ),
}
