"""Archives with the layouts of the published ones, a few pictures each."""

import io
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import scipy.io
from PIL import Image
from pycocotools import mask as rle

from lpcam_jax.data.voc_layout import VOC_CLASSES
from lpcam_jax.report.palette import mask_png

# id -> classes; the mask is one rectangle a class, from left to right, with a border of ignored pixels.
VOC = {
    "2007_000032": ["aeroplane", "person"],
    "2007_000033": ["aeroplane"],
    "2008_000002": ["tvmonitor"],
    "2008_000007": ["boat"],
    "2009_000006": ["bus", "car"],
    "2010_000003": ["bottle", "chair"],
}
VOC_TRAIN, VOC_VAL = ["2007_000032", "2008_000007"], ["2007_000033", "2009_000006"]
# SBD knows pictures of VOC's val too: they must not be trained on.
SBD_TRAIN, SBD_VAL = ["2008_000002", "2007_000033"], ["2010_000003", "2007_000032"]


def jpeg(seed: int, *, size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    """A random picture, size (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG")
    return buffer.getvalue()


def voc_mask(names: list[str], *, border: bool = True) -> np.ndarray:
    """uint8 (40, 60)."""
    mask = np.zeros((40, 60), np.uint8)
    for number, name in enumerate(names):
        left = 5 + 25 * number
        if border:
            mask[4:36, left - 1 : left + 21] = 255
        mask[5:35, left : left + 20] = VOC_CLASSES.index(name) + 1
    return mask


def annotation(names: list[str]) -> bytes:
    """The devkit's XML, with a difficult object, and a part, which is no object."""
    objects = "".join(
        f"<object><name>{name}</name><difficult>{int(number == 1)}</difficult><part><name>head</name></part></object>"
        for number, name in enumerate(names)
    )
    return f"<annotation><folder>VOC2012</folder><size><depth>3</depth></size>{objects}</annotation>".encode()


def devkit() -> dict[str, bytes]:
    """The files of VOCdevkit/VOC2012."""
    files = {}
    for seed, (name, classes) in enumerate(VOC.items()):
        files[f"JPEGImages/{name}.jpg"] = jpeg(seed)
        files[f"Annotations/{name}.xml"] = annotation(classes)
        if name in VOC_TRAIN + VOC_VAL:
            files[f"SegmentationClass/{name}.png"] = mask_png(voc_mask(classes))
    for split, ids in {"train": VOC_TRAIN, "val": VOC_VAL, "trainval": sorted(VOC_TRAIN + VOC_VAL)}.items():
        files[f"ImageSets/Segmentation/{split}.txt"] = "".join(f"{name}\n" for name in ids).encode()
    return files


def devkit_of_test() -> dict[str, bytes]:
    """The test archive's: pictures only."""
    ids = ["2008_000006", "2008_000011"]
    files = {f"JPEGImages/{name}.jpg": jpeg(50 + seed) for seed, name in enumerate(ids)}
    return files | {"ImageSets/Segmentation/test.txt": "\n".join(ids).encode()}


def sbd(form: str = "mat") -> dict[str, bytes]:
    """The files of benchmark_RELEASE/dataset; masks as in SBD ("mat": no ignored border) or converted ("png")."""
    files = {"train.txt": "\n".join(SBD_TRAIN).encode(), "val.txt": "\n".join(SBD_VAL).encode()}
    for name in SBD_TRAIN + SBD_VAL:
        mask = voc_mask(VOC[name], border=False)
        files[f"img/{name}.jpg"] = b"the same picture"
        files[f"cls/{name}.{form}"] = mask_png(mask) if form == "png" else matlab(mask)
    return files


def matlab(mask: np.ndarray) -> bytes:
    """SBD's struct."""
    boundaries = np.empty((20, 1), object)
    boundaries[:, 0] = [np.zeros((2, 2))] * 20
    fields = {"Boundaries": boundaries, "Segmentation": mask, "CategoriesPresent": np.unique(mask[mask > 0])}
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"GTcls": fields}, do_compression=True)
    return buffer.getvalue()


def unpack(files: dict[str, bytes], folder: Path) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def pack_tar(files: dict[str, bytes], path: Path, *, prefix: str) -> Path:
    """A tar, compressed when it is called .tgz."""
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def voc_archives(root: Path) -> Path:
    """The published archives' names and layouts."""
    root.mkdir(parents=True, exist_ok=True)
    pack_tar(devkit(), root / "VOCtrainval_11-May-2012.tar", prefix="VOCdevkit/VOC2012/")
    pack_tar(devkit_of_test(), root / "VOC2012test.tar", prefix="VOCdevkit/VOC2012/")
    pack_tar(sbd(), root / "benchmark.tgz", prefix="benchmark_RELEASE/dataset/")
    return root


# Twelve wide, ten high. Official ids leave gaps: 3 is the second class here, 90 the third.
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 3, "name": "car"}]


def box(left: int, top: int, right: int, bottom: int) -> list[int]:
    """A polygon that covers exactly these pixels, right and bottom exclusive."""
    return [left, top, right, top, right, bottom, left, bottom]


def coco_instances() -> dict:
    """Five pictures: overlaps, two-part polygons, both run-length codes, a crowd, nothing, fewer than three corners."""
    size = {"height": 10, "width": 12}
    images = [{"id": number, "file_name": coco_name(number), **size} for number in (9, 1, 30, 25, 400)]
    right = np.zeros((10, 12), np.uint8, order="F")
    right[2:8, 8:11] = 1
    packed = rle.encode(right)
    packed = {"size": packed["size"], "counts": packed["counts"].decode()}
    column = {"size": [10, 12], "counts": [0, 10, 110]}  # the first column: pixels run down
    everything = {"size": [10, 12], "counts": [0, 120]}
    rows = [
        (1, 1, [box(1, 1, 7, 7)], 0),
        (1, 3, [box(4, 4, 10, 9)], 0),  # paints over the person
        (9, 3, [box(0, 0, 3, 3), box(6, 6, 9, 9)], 0),
        (9, 1, everything, 1),  # a crowd: a label, no pixels
        (25, 90, packed, 0),
        (25, 1, column, 0),
        (400, 3, [[1, 1, 2, 2]], 0),
        (400, 1, [], 0),
    ]
    annotations = [
        {"id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd}
        for number, (image, category, segmentation, crowd) in enumerate(rows)
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": list(CATEGORIES)}


def coco_name(number: int, split: str = "train") -> str:
    """The published name of a picture."""
    return f"COCO_{split}2014_{number:012d}.jpg"


def coco_archives(root: Path) -> Path:
    """train2014.zip with a grey picture among the others, and the annotations."""
    root.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "train2014.zip", "w") as archive:
        archive.writestr("train2014/", b"")
        for number in (1, 9, 25, 30, 400):
            archive.writestr(
                f"train2014/{coco_name(number)}", jpeg(number, size=(12, 10), mode="L" if number == 9 else "RGB")
            )
    with zipfile.ZipFile(root / "annotations_trainval2014.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_train2014.json", json.dumps(coco_instances()))
        archive.writestr("annotations/captions_train2014.json", "{}")
    return root


def coco_archives_with_val(root: Path) -> Path:
    """`coco_archives`, and the same pictures once more as val2014."""
    coco_archives(root)
    with zipfile.ZipFile(root / "val2014.zip", "w") as archive:
        for number in (1, 9, 25, 30, 400):
            archive.writestr(f"val2014/{coco_name(number, 'val')}", jpeg(number, size=(12, 10)))
    values = coco_instances()
    for image in values["images"]:
        image["file_name"] = image["file_name"].replace("train", "val")
    with zipfile.ZipFile(root / "annotations_trainval2014.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("annotations/instances_val2014.json", json.dumps(values))
    return root
