"""COCO 2014 with masks drawn from its instance annotations, from the published archives or unpacked folders.

    DIR/annotations_trainval2014.zip  or  DIR/annotations/instances_train2014.json
    DIR/train2014.zip                 or  DIR[/images]/train2014/

split  pictures  labels, masks
train  82,783    all pictures by ascending id, also those without any class
val    40,504

A class is in a picture if any annotation, crowds included, says so. A mask starts as background; all annotations but
crowds are painted in the order of the file, later ones over earlier ones. So a labelled class may have no pixels, no
pixel is ignored, and crowds are background.

Source: the COCO reference repositories of the field.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..machine.errors import UserError
from .annotations.regions import coco_shape
from .archives import find_files
from .masks import MAX_CLASSES, grey_png
from .published import Benchmark, Example, Split, missing
from .records import relative_name

OFFICIAL = {"train": 82783, "val": 40504}
_PAGE = "the COCO download page, cocodataset.org"


class COCO14(Benchmark):
    """COCO 2014 with multi-hot labels and masks of 80 classes."""

    name = "coco14"
    SPLITS = tuple(OFFICIAL)

    def open_split(self, root: Path, split: str) -> Split:
        """See `Benchmark`."""
        folder, file = f"{split}2014", f"instances_{split}2014.json"
        pictures = find_files(root, folder, folders=("", "images"), archives=(f"{folder}.zip",))
        if pictures is None:
            raise missing(root, f"COCO {folder}", wanted=[f"{folder}.zip", f"{folder}/"], page=_PAGE)
        notes = find_files(
            root, file, folders=("annotations", ""), archives=("annotations_trainval2014.zip", "annotations*.zip")
        )
        if notes is None:
            places = ["annotations_trainval2014.zip", f"annotations/{file}"]
            raise missing(root, f"COCO's {file}", wanted=places, page=_PAGE)
        content = notes.read(file)
        instances = Instances(content, notes.shown(file))
        names = [f"{folder}/{image['file_name']}" for image in instances.images]
        pictures.require(names, f"pictures of {folder}", named_in=notes.shown(file))

        def example(image: dict[str, Any]) -> Example:
            path = f"{folder}/{image['file_name']}"
            name = str(PurePosixPath(image["file_name"]).with_suffix(""))
            mask = grey_png(instances.mask(image))
            return Example(pictures.read(path), name, instances.labels(image), mask, pictures.shown(path))

        return Split(
            class_names=instances.class_names,
            ids=[str(PurePosixPath(image["file_name"]).with_suffix("")) for image in instances.images],
            official=OFFICIAL[split],
            edition=hashlib.sha256(content).hexdigest(),
            has_labels=True,
            has_masks=True,
            examples=lambda start: _in_threads(example, instances.images[start:]),
        )


class Instances:
    """An instances JSON: pictures by id, their labels and masks.

    Args:
        content: of the JSON file.
        where: its name, for messages.

    Attributes:
        class_names: names of the categories, by ascending id: mask values 1..c.
        images: id, file_name, height and width of every picture, by ascending id.

    Raises:
        UserError: the file is not COCO's JSON of instances, or contradicts itself.
    """

    def __init__(self, content: bytes, where: str):
        self._where = where
        try:
            values = json.loads(content)
            categories = sorted(values["categories"], key=itemgetter("id"))
            self.class_names = tuple(str(category["name"]) for category in categories)
            self._index = {category["id"]: number for number, category in enumerate(categories)}
            self.images = sorted(values["images"], key=itemgetter("id"))
            for kind, ids in (("category", self._index), ("picture", {image["id"] for image in self.images})):
                if len(ids) < len(categories if kind == "category" else self.images):
                    raise ValueError(f"a {kind} id occurs twice")
            self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for annotation in values["annotations"]:
                if annotation["category_id"] not in self._index:
                    raise ValueError(f"an annotation of unknown category {annotation['category_id']}")
                self._annotations[annotation["image_id"]].append(annotation)
            for image in self.images:
                relative_name(image["file_name"], where)
                if not (0 < int(image["height"]) < 1 << 15 and 0 < int(image["width"]) < 1 << 15):
                    raise ValueError(f"picture {image['id']} is {image['width']}x{image['height']}")
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"no {error}" if isinstance(error, KeyError) else error
            raise UserError(f"{where}: not COCO's instances ({problem}); download it again") from None
        if not self.images or not 0 < len(self.class_names) <= MAX_CLASSES:
            raise UserError(
                f"{where}: {len(self.images)} pictures and {len(self.class_names)} categories; download it again"
            )

    def labels(self, image: dict[str, Any]) -> np.ndarray:
        """Labels of a picture, uint8 (c,), crowds included."""
        labels = np.zeros(len(self.class_names), np.uint8)
        labels[[self._index[annotation["category_id"]] for annotation in self._annotations[image["id"]]]] = 1
        return labels

    def mask(self, image: dict[str, Any]) -> np.ndarray:
        """Mask of a picture, uint8 (H, W): later annotations over earlier ones, without crowds."""
        height, width = int(image["height"]), int(image["width"])
        mask = np.zeros((height, width), np.uint8)
        for annotation in self._annotations[image["id"]]:
            if annotation.get("iscrowd"):
                continue
            try:
                if shape := coco_shape(annotation["segmentation"]):
                    mask[shape.inside((height, width))] = self._index[annotation["category_id"]] + 1
            except (ValueError, KeyError) as error:
                raise UserError(
                    f"{self._where}: annotation {annotation.get('id')} of picture {image['id']} cannot be drawn "
                    f"({error}); download it again"
                ) from None
        return mask


def _in_threads(function: Any, items: Sequence[Any]) -> Iterator[Any]:
    """Results in order, computed a few ahead; no new work is started once the caller stops iterating."""
    with ThreadPoolExecutor(4) as pool:
        remaining = iter(items)
        running = [pool.submit(function, item) for item in islice(remaining, 16)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(function, item) for item in islice(remaining, 1)]
