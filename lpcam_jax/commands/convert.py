"""Convert pretrained PyTorch weights to this package's format, with a report.

    python -m lpcam_jax convert resnet50.pth --out weights/
    python -m lpcam_jax convert hf:timm/resnet50.tv_in1k --out weights/
    python -m lpcam_jax convert deeplabv1_resnet101-coco.pth --out weights/

Detects the network from the entries of the file and writes backbone.npz (torchvision's names, float32, batch norm
separate; with the four convolutions of DeepLabV2, if the file has them, as head.0 to head.3) and report.json. No code
in the file is executed, and torch is not needed.
"""

from dataclasses import dataclass
from pathlib import Path

import tyro

from ..backbones.weights.fill import torchvision_arrays
from ..backbones.weights.names import read_weights
from ..backbones.weights.resnet import Architecture, fill_deeplab, find_architecture
from ..config.command_line import parse_flags
from ..machine.files import write_arrays, write_json

# Flags for DeepLabs converted from Caffe; the pool is DeepLab's, not that of the original Caffe ResNet.
_CAFFE_FLAGS = (
    "--model.layout caffe --model.stem-pool symmetric_ceil --model.channel-order bgr "
    "--model.mean 104.008 116.669 122.675 --model.std 1 1 1"
)


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """File of weights, and output folder."""

    file: tyro.conf.Positional[str]
    """.npz, .pth, .pt, .bin or .safetensors file, or hf:OWNER/NAME[/FILE] on the Hugging Face Hub"""
    out: Path
    """folder for backbone.npz and report.json"""


def main(words: list[str]) -> None:
    """Run the command.

    Args:
        words: the command line after `convert`.

    Raises:
        UserError: the file cannot be read or is not a ResNet with bottlenecks, or the output cannot be written.
    """
    arguments = parse_flags(Arguments, words, command="convert", description=__doc__)
    weights = read_weights(arguments.file)
    architecture = find_architecture(weights)
    loaded = fill_deeplab(weights, _shapes(architecture))
    flags = f"{architecture.flags()} {_CAFFE_FLAGS}" if weights.caffe else architecture.flags()

    target = arguments.out / "backbone.npz"
    write_arrays(target, **torchvision_arrays(loaded.network))
    report = {
        "file": arguments.file,
        "prefix": weights.prefix,
        "architecture": architecture._asdict(),
        "loaded": loaded.loaded,
        "skipped": loaded.skipped,
        "new": list(loaded.new),
        "flags": flags,
    }
    write_json(arguments.out / "report.json", report)
    print(f"{architecture}, {loaded}")
    print(f"train with it: --model.weights {target} {flags}")
    if weights.caffe:
        print("--model.layout and the flags after it follow from the names in the file, those of DeepLabs from Caffe.")
    else:
        print(
            "not in the file: --model.layout, .stem-pool, .channel-order, .mean, .std; the defaults of classifiers are "
            "torchvision's, those of configs/voc12_deeplabv2.py Caffe's: see there."
        )


def _shapes(architecture: Architecture) -> dict:
    """Shapes of the network's parameters and batch statistics, as a nested dict."""
    from flax import nnx

    from ..backbones.preprocessing import Preprocessing
    from ..backbones.resnet import ResNet
    from ..systems.deeplab.network import DeepLabV2
    from ..systems.lpcam.network import Classifier

    sizes = {"blocks": architecture.blocks, "width": architecture.width, "stem_width": architecture.stem_width}

    def build() -> "nnx.Module":
        rngs = nnx.Rngs(0)
        network = DeepLabV2 if architecture.deeplab else Classifier
        classes = architecture.classes or 1  # a classifier's head is new, whatever its size
        return network(ResNet(**sizes, rngs=rngs), classes, preprocessing=Preprocessing(), rngs=rngs)

    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(build)))
