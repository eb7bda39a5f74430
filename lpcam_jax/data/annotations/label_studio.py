"""Label Studio: one JSON file, the export named JSON: a list of tasks, each a picture and its annotations.

    [{"data": {"image": "/data/local-files/?d=IMG_0012.jpg"},
      "annotations": [{"result": [{"type": "polygonlabels", "original_width": 640, "original_height": 480,
                                   "value": {"points": [[x, y], ...], "polygonlabels": ["cat"]}}]}]}]

A picture has the labels and choices of its annotation: of several the one marked as ground truth, else the last. It
has a mask where all its labels have polygons or brushes. A task that nobody has annotated has no labels: predictions
are none.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from reprlib import repr  # short, however long or deep the value is
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from ..findings import listed, shown
from ..formats import SUFFIXES
from ..walk import walk
from .coco import load_json
from .regions import Brush, Damaged, Drawn, Shape, polygons
from .rows import MASKS, Labels, Report, Row, checked_name, default_pictures, is_text

_HEAD = 1 << 16
# What Label Studio puts before the name of an uploaded file, and what it leaves out of the name; spaces become "_".
_UPLOADED, _LEFT_OUT = re.compile(r"[0-9a-f]{8}-(?=.)"), re.compile(r"[^\w.-]")


def is_label_studio(path: Path) -> bool:
    """Whether a JSON file begins as Label Studio's do."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    keys = rb'"(annotations|predictions)"\s*:\s*\[|"data"\s*:\s*\{'
    return re.match(rb"(\xef\xbb\xbf)?\s*\[", head) is not None and re.search(keys, head) is not None


def read_label_studio(root: Path, path: Path, report: Report) -> Labels:
    """Read the file."""
    where, pictures = shown(path), default_pictures(root)
    tasks = load_json(path, "Label Studio", report) or []
    name_of = _Names(pictures)
    rows = [row for n, task in enumerate(tasks) if (row := _read(task, f"{where}, task [{n}]", name_of, report))]
    if tasks and not any(_annotated(task) for task in tasks):
        report(f"{where}: no task has an annotation; submit some in Label Studio, then export as JSON again")
    return Labels(path, pictures, rows, [])


def _annotated(task: Any) -> dict[str, Any] | None:
    """The annotation that counts."""
    annotations = task.get("annotations") if isinstance(task, dict) else None
    if not isinstance(annotations, list):
        return None
    valid = [one for one in annotations if isinstance(one, dict) and not one.get("was_cancelled")]
    return next((one for one in valid if one.get("ground_truth")), valid[-1] if valid else None)


def _read(task: Any, where: str, name_of: "_Names", report: Report) -> Row | None:
    if not isinstance(task, dict) or not isinstance(data := task.get("data"), dict):
        report(f"{where}: it has no data; export as JSON again, not as another of Label Studio's formats")
        return None
    if not isinstance(task.get("annotations") or [], list):
        report(f"{where}: its annotations are no list; export as JSON again")
        return None
    if (annotation := _annotated(task)) is None:
        return None
    results = annotation.get("result")
    if not isinstance(results, list) or not all(isinstance(one, dict) for one in results):
        report(f"{where}: its annotation has no list of objects named result; export as JSON again")
        return None
    texts = [text for text in (data.get("image"), *data.values()) if is_text(text)]
    address = next((text for text in texts if _path(text).suffix.lower() in SUFFIXES), None)
    if address is None:
        report(f"{where}: no picture in its data {repr(data)}; name one as its image")
        return None
    name, *others = name_of(_path(address))
    if others:
        report(f"{where}: {shown(address)} may be any of {listed([name, *others])}; give them different names")
        return None
    if not (name := checked_name(name, where, report)):
        return None
    regions = [result.get("id") for result in results if str(result.get("type")).endswith("labels")]
    found = [
        one
        for result in results
        # What is chosen for a region, such as that it is hidden, is no label of the picture.
        if result.get("type") != "choices" or result.get("id") is None or result["id"] not in regions
        for one in _labels(result)
    ]
    if not all(is_text(label) for label, _ in found):
        report(f"{where}: a label is no text; export as JSON again")
        return None
    found = [(label.strip(), shape) for label, shape in found]
    is_drawn = all(shape is not None for _, shape in found)
    drawn = Drawn(where, found, _size(results)) if is_drawn else None
    return Row(name, sorted({label for label, _ in found}), drawn=drawn)


def _path(address: str) -> PurePosixPath:
    """Where a picture is, of its address: a path, one behind `?d=` (local storage), or that of a URL."""
    try:
        url = urlsplit(address)
        local = parse_qs(url.query).get("d")
    except ValueError:
        return PurePosixPath(address)
    return PurePosixPath(local[0] if local else unquote(url.path))


class _Names:
    """The pictures of a folder, by the paths in their addresses."""

    def __init__(self, pictures: Path):
        self._pictures = pictures

    def __call__(self, path: PurePosixPath) -> list[str]:
        """The longest end of a path that is a picture here, or what may have been uploaded; else its last part."""
        parts = [part for part in path.parts if part != "/"]
        ends = ["/".join(parts[start:]) for start in range(len(parts)) if ".." not in parts[start:]]
        if found := next((end for end in ends if os.path.isfile(self._pictures / end)), None):
            return [found]
        if "upload" not in parts:
            return [path.name]
        plain = _UPLOADED.sub("", path.name)
        return self._uploaded.get(plain, [plain])

    @cached_property
    def _uploaded(self) -> dict[str, list[str]]:
        """Names of the pictures, by those that they get when they are uploaded, which leaves out their folders."""
        names = defaultdict(list)
        for path in walk(self._pictures).files:
            below = path.relative_to(self._pictures)
            if path.suffix.lower() in SUFFIXES and below.parts[0] != MASKS:
                names[_LEFT_OUT.sub("", path.name.strip().replace(" ", "_"))].append(below.as_posix())
        return names


def _labels(result: dict[str, Any]) -> Iterator[tuple[Any, Shape | None]]:
    """The labels of one result, and its region; a choice, a box or a point has none."""
    kind, value = result.get("type"), result.get("value")
    if not isinstance(kind, str) or not isinstance(value, dict):
        return
    if kind == "choices" or kind.endswith("labels"):
        labels = value.get(kind)
        shape = _shape(value, result.get("image_rotation"))
        for label in labels if isinstance(labels, list) else ():
            yield label, shape


def _shape(value: dict[str, Any], rotation: Any) -> Shape | None:
    if rotation and ("points" in value or "rle" in value):
        return Damaged("it was drawn on the rotated picture")
    if "points" in value:
        return polygons([value["points"]], unit=100)
    if "rle" in value:
        code = value["rle"]
        if isinstance(code, list) and all(type(byte) is int and 0 <= byte < 256 for byte in code):
            return Brush(np.array(code, np.uint8))
        return Damaged("its brush code is no list of bytes")
    return None


def _size(results: Sequence[dict[str, Any]]) -> tuple[int, int] | None:
    """(H, W) that a picture had when it was annotated; None: the results do not say."""
    for result in results:
        sides = result.get("original_height"), result.get("original_width")
        if all(type(side) is int and side > 0 for side in sides):
            return sides
    return None
