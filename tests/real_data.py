"""Photographs and weights that are not part of the repository: what needs them is skipped where they are not."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("LPCAM_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")

ANIMALS = DATA / "voc_animals"
THIN_RESNET50 = DATA / "thin_resnet50" / "thin_resnet50.npz"
VGG16 = DATA / "vgg16" / "vgg16.npz"
U2NETP = DATA / "u2netp" / "u2netp.onnx"


def needs(path: Path) -> pytest.MarkDecorator:
    """Skip a test without this file or folder."""
    name = path.relative_to(DATA)
    return pytest.mark.skipif(not path.exists(), reason=f"needs {name}, of the folder that LPCAM_TEST_DATA names")
