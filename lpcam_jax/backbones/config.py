"""What a recipe can say of a backbone: one dataclass each, told apart by its field `backbone`."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from ..config.numbers import Count
from ..config.registry import load_backbone_config
from ..machine.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

    from flax import nnx

    from .base import Backbone
    from .weights.fill import Loaded


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """What every backbone has: pretrained parameters, and the pictures that they expect."""

    backbone: str
    """which network turns pictures into features"""
    weights: str = ""
    """the backbone's pretrained parameters, with torchvision's names: an .npz, .pth, .pt, .bin or .safetensors file, or
    hf:OWNER/NAME[/FILE] on the Hugging Face Hub; or the --workdir of another run, whose network is then the default of
    the flags here; empty: random initialisation"""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """order of the channels the weights expect"""
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """subtracted from the 0..255 picture, in `channel_order`"""
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """divides after the mean is subtracted"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """of the convolutions; parameters, batch norm and the head stay float32"""

    fixed: ClassVar[tuple[str, ...]] = ("channel_order", "mean", "std")
    """names of the fields that stored parameters fix"""
    example_weights: ClassVar[str] = ""
    """a value of `weights` that anybody can download; empty: none is known"""

    @classmethod
    def class_for(cls, values: dict[str, Any]) -> type[Self]:
        """The dataclass that plain JSON values are of: what `backbone` names, or a ResNet where nothing does."""
        return load_backbone_config(values.get("backbone", "resnet")) if cls is BackboneConfig else cls

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: "nnx.Rngs") -> "Backbone":
        """The network, randomly initialized.

        Args:
            dilation: of stages whose stride was taken out: as LPCAM's classifier has it, or as a segmentation network.
            rngs: of the initialization.
        """
        raise NotImplementedError

    def load(self, path: "str | Path", network: dict[str, Any]) -> "Loaded":
        """Pretrained parameters from a file, as `models.weights.load_deeplab`; of most backbones none can be read."""
        raise UserError(
            f"--model.weights {path}: files of weights are not known for a backbone {self.backbone!r}; name the "
            "--workdir of another run with this backbone."
        )

    def flags(self) -> str:
        """The flags of train.py that describe this network."""
        return f"--model.backbone {self.backbone}"

    def like(self, other: "BackboneConfig") -> Self:
        """The same recipe for the network of another, stored one: what its parameters fix is taken over.

        Raises:
            UserError: it is a backbone of another kind.
        """
        if other.backbone != self.backbone:
            raise UserError(
                f"the run of --model.weights has a backbone {other.backbone!r}, this recipe {self.backbone!r}; name a "
                "run with the same backbone."
            )
        return dataclasses.replace(self, **{name: getattr(other, name) for name in self.fixed})


@dataclass(frozen=True, kw_only=True)
class ResNetConfig(BackboneConfig):
    """A ResNet of bottlenecks; with a linear head it is the classifier whose features are mapped."""

    backbone: Literal["resnet"] = "resnet"
    blocks: tuple[int, ...] = (3, 4, 6, 3)
    """bottlenecks a stage: (3, 4, 6, 3) is ResNet-50, (3, 4, 23, 3) ResNet-101"""
    width: Count = 64
    """bottleneck width of the first stage; the last stage has 32 times as many channels"""
    stem_width: Count = 64
    """channels after the first convolution"""
    layout: Literal["torchvision", "caffe"] = "torchvision"
    """where a stage's stride sits: on the 3x3 (torchvision) or on the first 1x1 (caffe, MSRA)"""
    stem_pool: Literal["symmetric", "ceil", "symmetric_ceil"] = "symmetric"
    """padding of the stem's max pool: one on each side, bottom and right only (Caffe's ceil mode), or both
    (DeepLabV2's)"""
    output_stride: Literal[32, 16, 8] = 16
    """pixels a feature position; strides are taken out of the last stages to reach it"""

    example_weights: ClassVar[str] = "hf:timm/resnet50.tv_in1k"
    fixed: ClassVar[tuple[str, ...]] = (
        *("blocks", "width", "stem_width", "layout", "stem_pool"),
        *BackboneConfig.fixed,
    )

    def build(self, *, dilation: Literal["reference", "atrous"] = "reference", rngs: "nnx.Rngs") -> "Backbone":
        """A `models.resnet.ResNet`; its arguments as there."""
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
        """Torchvision's names, and those of DeepLabs that began as Caffe's: `models.weights.load_deeplab`."""
        from .weights.fill import load_deeplab

        return load_deeplab(path, network)

    def flags(self) -> str:
        """Depth and widths."""
        blocks = " ".join(map(str, self.blocks))
        return f"--model.blocks {blocks} --model.width {self.width} --model.stem-width {self.stem_width}"
