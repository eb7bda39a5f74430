"""Configs of backbones: one dataclass each, distinguished by the field `backbone`."""

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from ..config.numbers import ChannelDivisors, ChannelMeans, Count, Limit
from ..config.registry import load_backbone_config
from ..machine.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from flax import nnx

    from .base import Backbone
    from .weights.fill import Loaded


@dataclass(frozen=True, kw_only=True)
class BackboneConfig(ABC):
    """Fields of every backbone: pretrained parameters, and the preprocessing they expect."""

    backbone: str
    """the network that extracts features"""
    weights: str = ""
    """pretrained parameters of the backbone: an .npz, .pth, .pt, .bin, .safetensors, .params or .onnx file
    with torchvision's names, or others in docs/backbones.md; hf:OWNER/NAME[/FILE] on the Hugging Face Hub; or the
    --workdir of another run, whose network is then the default of the flags here. Empty: random initialisation"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """channel order that the weights expect"""
    mean: ChannelMeans = (123.675, 116.28, 103.53)
    """subtracted from the 0..255 picture, in `channel_order`"""
    std: ChannelDivisors = (58.395, 57.12, 57.375)
    """divisor after subtracting the mean"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the convolutions and of what is stored between layers; parameters, logits and losses stay float32.
    bfloat16 is for GPUs and TPUs"""

    fixed: ClassVar[tuple[str, ...]] = ("channel_order", "mean", "std")
    """names of the fields determined by stored parameters"""
    optional: ClassVar[tuple[tuple[str, str], ...]] = ()
    """parts (stage, name) that a network with the same `fixed` may have or lack; its features mean the same"""
    example_weights: ClassVar[str] = ""
    """a public value for `weights`; empty: none is known"""

    @classmethod
    def class_for(cls, values: dict[str, Any]) -> type[Self]:
        """The dataclass for plain JSON values: the one their `backbone` names; by default a ResNet's."""
        return load_backbone_config(values.get("backbone", "resnet")) if cls is BackboneConfig else cls

    @abstractmethod
    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: "nnx.Rngs") -> "Backbone":
        """Build the network, randomly initialized.

        Args:
            dilation: dilation of stages with a removed stride, as in LPCAM's classifier ("reference") or in
                segmentation networks ("atrous").
            rngs: random streams for the initialization.
        """

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load pretrained parameters from a file; a backbone that knows no files keeps this method, which raises.

        Raises:
            UserError: the file cannot be read, or files are not supported.
        """
        raise UserError(
            f"--model.weights {path}: files of weights are not known for a backbone {self.backbone!r}; name the "
            "--workdir of another run with this backbone."
        )

    def flags(self) -> str:
        """The flags of train.py that select this network."""
        return f"--model.backbone {self.backbone}"

    def like(self, other: "BackboneConfig") -> Self:
        """This config with the fields that another run's parameters determine taken from that run's config.

        Args:
            other: the other run's config.

        Raises:
            UserError: the other backbone is of another kind.
        """
        if other.backbone != self.backbone:
            raise UserError(
                f"the run of --model.weights has a backbone {other.backbone!r}, this recipe {self.backbone!r}; name a "
                "run with the same backbone."
            )
        return dataclasses.replace(self, **{name: getattr(other, name) for name in self.fixed})


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(BackboneConfig):
    """A ResNet with bottleneck blocks."""

    backbone: Literal["resnet"] = "resnet"
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """bottlenecks per stage: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101"""
    width: Count = 64
    """bottleneck width of the first stage; the last stage has 32 times as many channels"""
    stem_width: Count = 64
    """channels after the first convolution"""
    layout: Literal["torchvision", "caffe"] = "torchvision"
    """position of a stage's stride: on the 3x3 (torchvision) or on the first 1x1 (caffe, MSRA)"""
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric"
    """padding of the stem's max pool: one on each side (symmetric), bottom and right only (ceil, as in Caffe), or both
    (symmetric_ceil, as in DeepLabV2)"""
    output_stride: Literal[32, 16, 8] = 16
    """pixels per feature position; strides of the last stages are removed to reach it"""

    example_weights: ClassVar[str] = "hf:timm/resnet50.tv_in1k"
    fixed: ClassVar[tuple[str, ...]] = (
        *("blocks", "width", "stem_width", "layout", "stem_pool"),
        *BackboneConfig.fixed,
    )

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: "nnx.Rngs") -> "Backbone":
        """Build a `backbones.resnet.ResNet`; arguments as in `BackboneConfig.build`."""
        import jax.numpy as jnp

        from .resnet import ResNet

        return ResNet(
            blocks=self.blocks,
            width=self.width,
            stem_width=self.stem_width,
            layout=self.layout,
            stem_pool=self.stem_pool,
            output_stride=self.output_stride,
            dilation=dilation,
            dtype=jnp.dtype(self.precision),
            rngs=rngs,
        )

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load a file with torchvision's names, or those of DeepLabs converted from Caffe (`load_deeplab`)."""
        from .weights.resnet import load_deeplab

        return load_deeplab(path, network)

    def flags(self) -> str:
        """The flags for depth and widths."""
        blocks = " ".join(map(str, self.blocks))
        return f"--model.blocks {blocks} --model.width {self.width} --model.stem-width {self.stem_width}"


@dataclass(frozen=True, kw_only=True)
class ViTConfig(BackboneConfig):
    """A vision transformer. The defaults are DeiT-S's; docs/backbones.md has the flags of others."""

    backbone: Literal["vit"] = "vit"
    patch: Count = 16
    """side of a patch in pixels, which is the stride of the features"""
    dim: Count = 384
    """channels: 192 of ViT-Ti, 384 of S, 768 of B, 1024 of L"""
    depth: Annotated[int, Limit(lambda value: value >= 4, "use at least 4")] = 12
    """blocks: 12 of ViT-Ti, S and B, 24 of L"""
    head_dim: Count = 64
    """channels of an attention head; 64 in all of them, and no file of weights tells"""
    mlp_ratio: Count = 4
    """channels between the two layers of a block, over `dim`"""
    tokens: Count = 1
    """tokens beside the patches: 1, the class token; 2 with a distillation token; 5 with four registers"""
    position_grid: Count = 14
    """rows and columns of the stored positions: side of the pictures that they were trained on, over `patch`"""
    position_resize: Literal["antialiased", "bicubic", "offset"] = "antialiased"
    """how the stored positions are resized to the grid of a picture: antialiased as in timm, open_clip and DINOv2 with
    registers, bicubic as in transformers, or by a size that is 0.1 larger, as in DINO and DINOv2"""
    layer_scale: bool = False
    """whether the outputs of the branches are scaled, as in DINOv2"""
    pre_norm: bool = False
    """whether a norm stands before the blocks, as in CLIP"""
    final_norm: bool = True
    """whether the features are those after the last norm"""
    activation: Literal["gelu", "quick_gelu"] = "gelu"
    """gelu, exact; or quick_gelu, x sigmoid(1.702 x), as in OpenAI's CLIP"""
    norm_epsilon: float = 1e-6
    """added to the variance in norms; 1e-5 in CLIP"""
    remat: bool = False
    """whether blocks are computed again for the gradient instead of stored: training takes less memory and a third more
    time"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the products and of what is stored between layers; parameters, norms, softmax and the head stay
    float32"""

    example_weights: ClassVar[str] = "hf:timm/deit_small_patch16_224.fb_in1k"
    fixed: ClassVar[tuple[str, ...]] = (
        *("patch", "dim", "depth", "head_dim", "mlp_ratio", "tokens", "position_grid", "position_resize"),
        *("layer_scale", "pre_norm", "final_norm", "activation", "norm_epsilon"),
        *BackboneConfig.fixed,
    )

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: "nnx.Rngs") -> "Backbone":
        """Build a `backbones.vit.ViT`; nothing in it is dilated.

        Raises:
            UserError: the heads do not divide the channels.
        """
        import jax.numpy as jnp

        from .vit import ViT

        if self.dim % self.head_dim:
            raise UserError(f"--model.dim {self.dim} is no multiple of --model.head-dim {self.head_dim}; change one.")
        return ViT(
            patch=self.patch,
            dim=self.dim,
            depth=self.depth,
            head_dim=self.head_dim,
            mlp_ratio=self.mlp_ratio,
            tokens=self.tokens,
            grid=self.position_grid,
            resize=self.position_resize,
            pre_norm=self.pre_norm,
            final_norm=self.final_norm,
            layer_scale=self.layer_scale,
            activation=self.activation,
            epsilon=self.norm_epsilon,
            remat=self.remat,
            dtype=jnp.dtype(self.precision),
            rngs=rngs,
        )

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Load a file with the names of timm, DeiT, DINO, DINOv2, transformers, CLIP or open_clip (`load_vit`)."""
        from .weights.vit import load_vit

        return load_vit(path, network, self)

    def flags(self) -> str:
        """The flags for everything that parameters depend on."""
        from .weights.vit import Architecture

        return f"--model.backbone vit {Architecture.of(self).flags()}"
