"""What networks are trained on that learn from heat maps: labels of the pixels that those are sure of.

fg, bg = CRF of the seeds at a high and at a low threshold
label  = fg, where it is a class;  0, where both are background;  255, unsure, elsewhere

    labels/ID.png         palette PNG: 0 background, n + 1 class n, 255 unsure
    labels/protocol.json  what they were made with
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config import SureLabels
from ..data.augment import random_crop, random_mirror, resize_bicubic, resize_mask, scaled_size
from ..data.masks import IGNORE, MaskFolder, expect_numbered
from ..data.pipeline import Augmentation, Batch
from ..data.records import Record, RecordSource
from ..data.relabelled import Relabelled
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import write_atomically
from ..refine.pictures import sure_labels
from ..report.palette import mask_png
from ..results.folder import ResultFolder, write_all
from ..results.predictions import MapFolder, open_method, read_protocol, with_maps
from ..seeds import with_class_values
from ..training.run import Run


def expect_few_classes(pictures: RecordSource, network: str) -> None:
    """UserError when there are more classes than the labels can number that a network of this name is trained from."""
    expect_numbered(len(pictures.class_names), f"{network}'s labels", "choose some of them, with --data.classes")


def expect_maps(config: Any, network: str) -> None:
    """UserError when no folder of heat maps is named, which a network of this name is trained from."""
    if not config.data.maps:
        raise UserError(
            f"{network} is trained from heat maps; name the folder that infer.py wrote with --data.maps DIR."
        )


def sure_crops(crop: int, scale_range: tuple[float, float], *, grid: int) -> Augmentation:
    """Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; mask uint8 (grid, grid); and
    labels float32 (c,), if the record has them.

    The mask is that of the pixels in the middle of each position of the network's grid; it has no label (255) beyond
    the picture.

    Args:
        crop: side of the square crop.
        scale_range: each picture is resized by a number between these before cropping.
        grid: positions of the network along a side of the crop.

    Source: IRN's step "train_irn"; AMN's training.
    """

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        size = scaled_size(record.mask.shape, rng.uniform(*scale_range))
        both = np.dstack([resize_bicubic(record.image, size), resize_mask(record.mask, size)])
        canvas, box = random_crop(rng, random_mirror(rng, both), crop=crop)
        beyond = np.ones(canvas.shape[:2], bool)
        beyond[box[0] : box[2], box[1] : box[3]] = False
        mask = np.where(beyond, np.uint8(IGNORE), canvas[..., 3])
        batch = {"image": canvas[..., :3], "box": box, "mask": resize_mask(mask, (grid, grid))}
        return batch if record.labels is None else {**batch, "labels": record.labels}

    return augmented


def label_pictures(run: Run, pictures: RecordSource) -> Relabelled:
    """The pictures with their sure labels, which are made where they are missing.

    Args:
        run: of IRNet or AMN: its directory, and where the heat maps are.
        pictures: to be labelled; those without maps are left out.

    Returns:
        The pictures that have labels, with them.

    Raises:
        UserError: no folder of maps is named, there are no maps, they do not fit, or labels were made from others.

    Source: IRN's step "cam_to_ir_label".
    """
    config, settings = run.config, run.config.labels
    maps = open_method(config.data.maps, settings.method, ids=pictures.ids)
    pictures = with_maps(pictures, maps)
    protocol = labels_protocol(settings, maps, config.data.maps)
    folder = ResultFolder(run.directory / "labels", protocol, what="labels", flag="--workdir")
    masks = MaskFolder(folder.directory)

    def write(_: int, record: Record, __: None) -> None:
        classes, of_picture = maps.read_for(record, protocol["method"], classes=len(run.class_names))
        sure = sure_labels(record.image, of_picture, foreground=settings.foreground, background=settings.background)
        write_atomically(masks.file(record.id), mask_png(with_class_values(sure, classes)))

    share = processes.share(range(len(pictures)))
    missing = [index for index in share if not masks.file(pictures.ids[index]).exists()]
    if missing:
        # A picture that cannot be read ends the run: training would meet it, too.
        write_all(((index, pictures[index], None) for index in tqdm(missing, "labels", unit="img")), write)
    processes.gather(np.zeros(0))  # the labels of all are there
    return Relabelled(pictures, masks)


def labels_protocol(settings: SureLabels, maps: MapFolder, where: str | Path) -> dict[str, Any]:
    """What labels are made with, as plain JSON values.

    Args:
        settings: thresholds.
        maps: of one method.
        where: the folder of theirs, as it was named.

    Raises:
        UserError: as `read_protocol`.
    """
    [method] = maps.methods
    return {
        "maps": read_protocol(maps) or Path(where).name,
        "method": method,
        "foreground": settings.foreground,
        "background": settings.background,
    }


def kept_labels(run: Run, protocol: dict[str, Any]) -> MaskFolder | None:
    """The labels that a run was trained on; None when they were made otherwise."""
    folder = run.directory / "labels"
    try:
        before = json.loads((folder / "protocol.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return MaskFolder(folder) if before == protocol else None
