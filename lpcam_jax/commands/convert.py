"""Pretrained weights of the torch world, as a file of ours, with a report of what was found.

    python -m lpcam_jax convert resnet50-19c8e357.pth --out weights/
    python -m lpcam_jax convert hf:timm/resnet50.tv_in1k --out weights/

Finds out which network the entries are of and writes backbone.npz (torchvision's names, float32, batch norm separate)
and report.json. Nothing in the file is run, and torch is not needed.
"""

import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from flax import nnx

from ..files import write_atomically
from ..models.resnet import ResNet
from ..models.weights import Architecture, fill_backbone, find_architecture, read_weights, torchvision_arrays


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """A file of weights, and where its backbone goes."""

    file: tyro.conf.Positional[str]
    """.npz, .pth, .pt, .bin or .safetensors file, or hf:OWNER/NAME[/FILE] on the Hugging Face Hub"""
    out: Path
    """folder for backbone.npz and report.json"""


def main(words: list[str]) -> None:
    """Run the command.

    Args:
        words: the command line after `convert`.

    Raises:
        UserError: the file cannot be read, is no ResNet of bottlenecks, or the output cannot be written.
    """
    arguments = tyro.cli(Arguments, args=words, prog="python -m lpcam_jax convert", description=__doc__)
    weights = read_weights(arguments.file)
    architecture = find_architecture(weights)
    loaded = fill_backbone(weights, _shapes(architecture))

    archive, target = io.BytesIO(), arguments.out / "backbone.npz"
    np.savez(archive, **torchvision_arrays(loaded.backbone))
    write_atomically(target, archive.getvalue())
    report = {
        "file": arguments.file,
        "prefix": weights.prefix,
        "architecture": architecture._asdict(),
        "loaded": loaded.loaded,
        "skipped": loaded.skipped,
        "new": ["head"],
    }
    write_atomically(arguments.out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    print(f"{architecture}, {loaded}")
    print(f"train with it: --model.weights {target} {architecture.flags()}")
    print("not in the file: --model.layout, .stem-pool, .channel-order, .mean, .std; the defaults are torchvision's.")


def _shapes(architecture: Architecture) -> dict:
    """The backbone's parameters and statistics without memory, as a nested dict."""
    sizes = {"blocks": architecture.blocks, "width": architecture.width, "stem_width": architecture.stem_width}
    return nnx.to_pure_dict(nnx.state(nnx.eval_shape(lambda: ResNet(**sizes, rngs=nnx.Rngs(0)))))
