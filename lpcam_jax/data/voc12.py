"""PASCAL VOC 2012 with SBD's masks, from the published archives or an unpacked devkit.

    DIR/VOCtrainval_11-May-2012.tar   or  DIR[/VOCdevkit]/VOC2012/   or DIR itself the devkit's VOC2012
    DIR/benchmark.tgz                 or  DIR/benchmark_RELEASE/dataset/    or masks DIR/SegmentationClassAug/*.png
    DIR/VOC2012test.tar               for the split test

split       pictures  list                                                 masks
train       1,464     ImageSets/Segmentation/train.txt                     SegmentationClass
val         1,449     ImageSets/Segmentation/val.txt                       SegmentationClass
test        1,456     ImageSets/Segmentation/test.txt                      not published
train_aug   10,582    train_aug.txt in DIR or ImageSets/Segmentation, or   SegmentationClass, else SBD's
                      (SBD's lists + train) - val, sorted

Labels are the objects in `Annotations/ID.xml`, difficult ones included; without that file, the classes in the mask.
"""

import io
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree import ElementTree

import numpy as np
import scipy.io
from tqdm import tqdm

from ..machine.errors import UserError
from .archives import Files, find_files
from .findings import shown
from .masks import grey_png, read_mask
from .pictures import Encoded
from .published import Benchmark, Example, Split, missing
from .records import relative_name
from .voc_layout import VOC_CLASSES

OFFICIAL = {"train": 1464, "val": 1449, "test": 1456, "train_aug": 10582}
_LISTS = "ImageSets/Segmentation"
_PAGE = "the VOC 2012 page, host.robots.ox.ac.uk/pascal/VOC/voc2012"
_SBD_PAGE = "the page of the Semantic Boundaries Dataset, home.bharathh.info/home/sbd"


class VOC12(Benchmark):
    """The segmentation splits of PASCAL VOC 2012, and train_aug, which SBD adds."""

    name = "voc12"
    SPLITS = tuple(OFFICIAL)

    def open_split(self, root: Path, split: str) -> Split:
        """See `Benchmark`."""
        devkit = _find_devkit(root, split)
        sbd = _find_sbd(root) if split == "train_aug" else None
        if split == "train_aug":
            ids, named_in = _train_aug(root, devkit, sbd)
        else:
            ids, named_in = _ids(devkit, f"{_LISTS}/{split}.txt"), devkit.shown(f"{_LISTS}/{split}.txt")
        if not ids:
            raise UserError(f"{named_in}: the list is empty; download the data set again")
        devkit.require([f"JPEGImages/{name}.jpg" for name in ids], f"pictures of {split}", named_in=named_in)
        masks = _Masks(devkit, sbd)
        has_masks = split != "test" and all(name in masks for name in ids)
        has_labels = split != "test"
        if has_labels and not has_masks:
            annotations = [f"Annotations/{name}.xml" for name in ids]
            devkit.require(annotations, f"annotations of {split}", named_in=named_in)

        def examples(start: int) -> Iterator[Example]:
            for name in ids[start:]:
                path = f"JPEGImages/{name}.jpg"
                mask = masks.read(name) if has_masks else None
                labels = _labels(devkit, name, mask) if has_labels else None
                png = None if mask is None else grey_png(mask)
                yield Example(devkit.read(path), name, labels, png, devkit.shown(path))

        edition = f"{devkit.place.resolve()} {sbd and sbd.place.resolve()}"
        return Split(VOC_CLASSES, ids, OFFICIAL[split], edition, has_labels, has_masks, examples)


class _Masks:
    """Masks by id: the devkit's own, otherwise SBD's, as a PNG or a MATLAB file."""

    def __init__(self, devkit: Files, sbd: Files | None):
        self._places = [(devkit, "SegmentationClass/{}.png")]
        if sbd is not None:
            self._places += [(sbd, "SegmentationClassAug/{}.png"), (sbd, "cls/{}.png"), (sbd, "cls/{}.mat")]

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def read(self, name: str) -> np.ndarray:
        """The mask of an id: uint8 (H, W), 0..20 or 255."""
        files, path = self._find(name)
        content = files.read(path)
        if path.endswith(".mat"):
            content = _png_of_matlab(content, files.shown(path))
        return read_mask(Encoded(files.shown(path), content), num_classes=len(VOC_CLASSES))

    def _find(self, name: str) -> tuple[Files, str] | None:
        candidates = ((files, pattern.format(name)) for files, pattern in self._places)
        return next(((files, path) for files, path in candidates if path in files), None)


def _find_devkit(root: Path, split: str) -> Files:
    archive = "VOC2012test.tar" if split == "test" else "VOCtrainval_11-May-2012.tar"
    anchor = f"{_LISTS}/{'train' if split == 'train_aug' else split}.txt"
    kind = "test" if split == "test" else "trainval"
    files = find_files(
        root,
        anchor,
        folders=("", "VOC2012", "VOCdevkit/VOC2012"),
        archives=(archive, f"VOC*2012*{kind}*.tar", f"VOC*{kind}*2012*.tar", "VOCdevkit*.tar"),
    )
    if files is None:
        places = [archive, "the unpacked VOCdevkit/VOC2012"]
        raise missing(root, f"VOC 2012 ({anchor})", wanted=places, page=_PAGE)
    return files


def _find_sbd(root: Path) -> Files | None:
    places = ("", "benchmark_RELEASE/dataset", "SBD/dataset", "SBD", "VOC2012", "VOCdevkit/VOC2012")
    masks = find_files(root, "SegmentationClassAug", folders=places, archives=())
    return masks or find_files(root, "cls", folders=places, archives=("benchmark*.tgz", "SBD*.tgz", "benchmark*.tar"))


def _train_aug(root: Path, devkit: Files, sbd: Files | None) -> tuple[list[str], str]:
    """The user's list, or SBD's pictures and train without val: 10,582 as published; and where they are named."""
    for file in (root / "train_aug.txt", root / "trainaug.txt"):
        if file.is_file():
            return _ids(Files(root, None, lambda name: (root / name).read_bytes()), file.name), shown(file)
    for name in ("train_aug.txt", "trainaug.txt"):
        if f"{_LISTS}/{name}" in devkit:
            return _ids(devkit, f"{_LISTS}/{name}"), devkit.shown(f"{_LISTS}/{name}")
    if sbd is None:
        places = ["benchmark.tgz", "SegmentationClassAug/", "train_aug.txt"]
        raise missing(root, "SBD, which extends train to train_aug,", wanted=places, page=_SBD_PAGE)
    # SBD's own lists are beside its cls/; a folder of PNG masks is its own list.
    lists = [name for name in ("train.txt", "val.txt") if name in sbd and sbd.names("cls")]
    if lists:
        extra = {name for file in lists for name in _ids(sbd, file)}
    else:
        files = map(PurePosixPath, sbd.names("SegmentationClassAug") or sbd.names("cls"))
        extra = {file.stem for file in files if file.suffix in (".png", ".mat") and not file.name.startswith(".")}
    train, val = (set(_ids(devkit, f"{_LISTS}/{name}.txt")) for name in ("train", "val"))
    tqdm.write(f"train_aug: {len(extra):,} from SBD and {len(train):,} from train, without the {len(val):,} in val")
    lists = [sbd.shown(name) for name in lists or ["cls"]] + [devkit.shown(f"{_LISTS}/train.txt")]
    return sorted((extra | train) - val), " or ".join(lists)


def _ids(files: Files, path: str) -> list[str]:
    """The first name of every line, without folders and extension."""
    try:
        lines = files.read(path).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{files.shown(path)}: not UTF-8 text; download the list again") from None
    names = [
        PurePosixPath(relative_name(line.split()[0].lstrip("/"), files.shown(path))).stem
        for line in lines
        if line.strip()
    ]
    return list(dict.fromkeys(names))


def _labels(devkit: Files, name: str, mask: np.ndarray | None) -> np.ndarray:
    """uint8 (20,): the annotated objects; without an annotation, the classes in the mask."""
    path = f"Annotations/{name}.xml"
    if path not in devkit:
        return np.isin(np.arange(1, len(VOC_CLASSES) + 1), mask).astype(np.uint8)
    try:
        objects = [
            (element.text or "").strip()
            for element in ElementTree.fromstring(devkit.read(path)).iterfind("object/name")
        ]
    except ElementTree.ParseError as error:
        raise UserError(f"{devkit.shown(path)}: damaged XML ({error}); download it again") from None
    unknown = sorted(set(objects) - set(VOC_CLASSES))
    if unknown:
        raise UserError(
            f"{devkit.shown(path)}: object {unknown[0]!r} is not one of the twenty classes; download it again"
        )
    return np.array([name in objects for name in VOC_CLASSES], np.uint8)


def _png_of_matlab(content: bytes, where: str) -> bytes:
    """The class indices in the field Segmentation of SBD's struct GTcls, as a grey PNG."""
    try:
        mask = scipy.io.loadmat(io.BytesIO(content))["GTcls"][0, 0]["Segmentation"]
        return grey_png(np.ascontiguousarray(mask, np.uint8))
    except Exception as error:  # scipy can raise anything on a damaged file
        raise UserError(f"{where}: not a readable mask of SBD ({error}); download it again") from error
