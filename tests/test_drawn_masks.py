"""Masks that label files draw: what `export` writes is read back, pixel by pixel, and what cannot be drawn is said."""

import base64
import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from scipy.ndimage import gaussian_filter

from lpcam_jax.data import brush, run_lengths
from lpcam_jax.data.checks import check_folder
from lpcam_jax.data.folder import Folder
from lpcam_jax.exports.coco import coco_instances
from lpcam_jax.exports.components import components
from lpcam_jax.exports.cvat import cvat_archive
from lpcam_jax.exports.label_studio import label_studio_tasks
from lpcam_jax.exports.labelme import labelme_document
from lpcam_jax.exports.yolo import yolo_description, yolo_labels

CLASSES = ("traffic light", "Größe 2", "cat")  # not in the order of the alphabet
HOLES = [[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 2, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 3]]  # and an island
LAYOUTS = ("coco polygons", "coco rle", "coco lists", "labelme", "yolo", "studio polygons", "studio rle", "cvat")


@pytest.fixture(scope="module")
def masks() -> dict[str, np.ndarray]:
    """Of odd sizes, with holes, parts, single pixels, ignored pixels, and nothing at all."""
    heat = gaussian_filter(np.random.default_rng(0).random((4, 37, 53)), (0, 2, 2))
    noise = np.random.default_rng(1).integers(0, 4, (23, 6))
    smooth = np.where(heat.max(axis=0) < 0.55, 255, heat.argmax(axis=0))
    found = {
        "a 1": smooth,
        "sub/ü.b": np.array(HOLES),
        "noise": noise,
        "one": np.ones((1, 1)),
        "empty": np.zeros((7, 5)),
    }
    return {name: mask.astype(np.uint8) for name, mask in found.items()}


def sure(mask: np.ndarray) -> np.ndarray:
    return np.where(mask == 255, 0, mask)


def pictures(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    for name, mask in masks.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", mask.shape[::-1]).save(folder / f"{name}.png")
    return folder


def write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def accepted(tasks: list[dict]) -> str:
    """Tasks whose predictions somebody has submitted, as Label Studio exports them."""
    return json.dumps([{"id": 1, "annotations": task.pop("predictions"), "drafts": [], **task} for task in tasks])


def make(root: Path, layout: str, masks: dict[str, np.ndarray]) -> Path:
    """A data set of pictures and of what `export` writes."""
    pictures(root / "images", masks)
    kind, _, regions = layout.partition(" ")
    by_file = [(f"{name}.png", mask) for name, mask in masks.items()]
    match kind:
        case "coco":
            document = coco_instances(by_file, CLASSES, run_lengths=regions != "polygons")
            for one in document["annotations"] if regions == "lists" else ():
                whole = rle.decode({**one["segmentation"], "counts": one["segmentation"]["counts"].encode()})
                flat = whole.T.ravel()
                edges = np.flatnonzero(np.diff(flat, prepend=0, append=-1))
                one["segmentation"]["counts"] = np.diff(edges, prepend=0).tolist()
            write(root / "annotations.json", json.dumps(document))
        case "labelme":
            for file, mask in by_file:
                document = labelme_document(file, mask, CLASSES)
                write((root / "images" / file).with_suffix(".json"), json.dumps(document))
        case "yolo":
            for name, mask in masks.items():
                write(root / "labels" / f"{name}.txt", yolo_labels(mask))
            write(root / "data.yaml", yolo_description(CLASSES))
        case "studio":
            prefix = "/data/local-files/?d=photos/"
            write(
                root / "tasks.json",
                accepted(label_studio_tasks(by_file, CLASSES, prefix=prefix, brushes=regions == "rle")),
            )
        case "cvat":
            with zipfile.ZipFile(io.BytesIO(cvat_archive(masks.items(), CLASSES))) as archive:
                archive.extractall(root)
    return root


def in_order_of(names: tuple[str, ...], mask: np.ndarray) -> np.ndarray:
    """A mask of CLASSES, renumbered."""
    values = {n: names.index(name) + 1 for n, name in enumerate(CLASSES, start=1) if name in names}
    return np.vectorize(lambda value: values.get(value, 0), otypes=[int])(mask)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_exported_is_read_back_pixel_by_pixel(tmp_path, masks, layout):
    source = Folder(make(tmp_path, layout, masks))
    assert source.class_names == tuple(sorted(CLASSES))
    assert set(source.ids) == set(masks)
    assert source.has_masks
    for index, name in enumerate(source.ids):
        expected = in_order_of(source.class_names, sure(masks[name]))
        np.testing.assert_array_equal(source.mask(index), expected)
        np.testing.assert_array_equal(source[index].mask, expected)
        assert {n for n in range(1, 4) if source.labels[index][n - 1]} == set(np.unique(expected)) - {0}
    only = Folder(tmp_path, classes=("cat",))
    index = only.ids.index("noise")
    np.testing.assert_array_equal(only.mask(index), masks["noise"] == 3)
    assert not [one for one in check_folder(tmp_path).findings if "region" in str(one) or "mask" in str(one)]
