"""Sure labels: the training labels of IRNet and AMN, for the pixels whose label their heat maps are certain of.

fg, bg = seeds at a high and at a low threshold, each refined by a CRF
label  = fg where fg is a class;  0 where both are background;  255 (unsure) elsewhere

    labels/ID.png         palette PNG: 0 background, n + 1 class n, 255 unsure
    labels/protocol.json  how they were made
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config import SureLabels
from ..data.augment import random_crop, random_mirror
from ..data.masks import MaskFolder, expect_numbered
from ..data.pipeline import Augmentation, Batch
from ..data.records import Record, RecordSource
from ..data.relabelled import Relabelled
from ..data.resizing import resize_bicubic, resize_mask, scaled_size
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import write_atomically
from ..machine.threads import map_ahead
from ..refine.pictures import sure_labels
from ..report.palette import mask_png
from ..results.folder import ResultFolder, write_all
from ..results.map_folder import MapFolder
from ..results.origins import Origins
from ..results.predictions import mapped_pictures, read_protocol
from ..seeds import IGNORE, with_class_values
from ..training.run import Run


def expect_few_classes(pictures: RecordSource, network: str) -> None:
    """UserError when there are more classes than the labels can number that a network of this name is trained from."""
    expect_numbered(len(pictures.class_names), f"{network}'s labels", "choose some of them, with --data.classes")


def expect_maps(config: Any, network: str) -> None:
    """Raise UserError if the config names no folder of heat maps; `network` is the network's name in the message."""
    if not config.data.maps:
        raise UserError(
            f"{network} is trained from heat maps; name the folder that infer.py wrote with --data.maps DIR."
        )


def expect_thresholds(labels: SureLabels) -> None:
    """Raise UserError if no pixel would be left unsure, because the upper threshold is below the lower one."""
    if labels.foreground < labels.background:
        raise UserError(
            f"--labels.foreground {labels.foreground:g} --labels.background {labels.background:g}: what is between the "
            "two is unsure, so the first must be the larger one; swap them."
        )


def sure_crops(crop: int, scale_range: tuple[float, float], *, grid: int) -> Augmentation:
    """Random crops with sure labels as masks.

    Args:
        crop: side of the square crop.
        scale_range: each picture is resized by a uniform factor from this range before cropping.
        grid: positions of the network's output along a side of the crop.

    Returns:
        Record -> image uint8 (crop, crop, 3); box int32 (4,), top, left, bottom, right; mask uint8 (grid, grid); and
        labels float32 (c,), if the record has them. The mask holds the label at the centre of each grid position, 255
        outside the picture.

    Source: IRN's step "train_irn"; AMN's training.
    """

    def augmented(record: Record, rng: np.random.Generator) -> Batch:
        size = scaled_size(record.mask.shape, rng.uniform(*scale_range))
        stacked = np.dstack([resize_bicubic(record.image, size), resize_mask(record.mask, size)])
        canvas, box = random_crop(rng, random_mirror(rng, stacked), crop=crop)
        outside = np.ones(canvas.shape[:2], bool)
        outside[box[0] : box[2], box[1] : box[3]] = False
        mask = np.where(outside, np.uint8(IGNORE), canvas[..., 3])
        batch = {"image": canvas[..., :3], "box": box, "mask": resize_mask(mask, (grid, grid))}
        return batch if record.labels is None else {**batch, "labels": record.labels}

    return augmented


def label_pictures(run: Run, pictures: RecordSource) -> Relabelled:
    """Attach sure labels to the pictures, making the missing ones.

    Args:
        run: a run of IRNet or AMN; its config names the heat maps, its directory receives the labels.
        pictures: the pictures to label; those without maps are left out.

    Returns:
        The pictures that have maps, with their sure labels as masks.

    Raises:
        UserError: there are no maps, they do not match the pictures, or the run's labels were made from other maps.

    Source: IRN's step "cam_to_ir_label".
    """
    config, settings = run.config, run.config.labels
    pictures, maps = mapped_pictures(pictures, config.data.maps, settings.method)
    protocol = labels_protocol(settings, maps, config.data.maps)
    folder = ResultFolder(run.directory / "labels", protocol, what="labels", flag="--workdir")
    masks = MaskFolder(folder.directory)

    def write(record: Record, classes: np.ndarray, picture_maps: np.ndarray) -> None:
        labels = sure_labels(record.image, picture_maps, foreground=settings.foreground, background=settings.background)
        write_atomically(masks.file(record.id), mask_png(with_class_values(labels, classes)))

    keep_labels(run, pictures, maps, masks.file, write)
    return Relabelled(pictures, masks)


def keep_labels(
    run: Run,
    pictures: RecordSource,
    maps: MapFolder,
    file: Callable[[str], Path],
    write: Callable[[Record, np.ndarray, np.ndarray], None],
) -> None:
    """Make the labels of a run that are missing, and again those whose pictures or maps have changed.

    Args:
        run: the run.
        pictures: pictures that have maps; each process makes the labels of its share.
        maps: their heat maps, of one method.
        file: id of a picture -> the file with its labels.
        write: writes the labels of (record, classes int (n,), maps float32 (n, H, W)).

    Raises:
        UserError: labels have changed on which the run was trained; or a picture cannot be read.
    """
    origins, [method] = Origins(run.directory / "labels"), maps.methods

    def write_one(index: int, record: Record, __: None) -> None:
        classes, picture_maps = maps.read_for(record, method, classes=len(run.class_names))
        origins.note(pictures, index, maps.inputs)
        write(record, classes, picture_maps)

    share = processes.share(range(len(pictures)))
    done = [index for index in share if file(pictures.ids[index]).exists()]
    changed = origins.changed(pictures, done, maps.inputs)
    if changed and run.steps():
        raise UserError(
            f"{run.directory} was trained on labels of other heat maps or pictures ({len(changed)} of {len(done)} have "
            "changed since); choose another --workdir, or delete this one to start again."
        )
    for index in changed:
        file(pictures.ids[index]).unlink(missing_ok=True)
    if missing := sorted({*share} - {*done} | {*changed}):
        # A picture that cannot be read ends the run here, since training would fail on it too.
        records = map_ahead(lambda index: (index, pictures[index], None), missing)
        write_all(tqdm(records, "labels", len(missing), unit="img"), write_one)
    processes.wait()  # until each has written its labels


def labels_protocol(settings: SureLabels, maps: MapFolder, where: str | Path) -> dict[str, Any]:
    """Describe how the labels are made, as plain JSON values.

    Args:
        settings: the thresholds.
        maps: the heat maps, of one method.
        where: their folder, as given by the user.

    Raises:
        UserError: see `read_protocol`.
    """
    [method] = maps.methods
    return {
        "maps": read_protocol(maps) or Path(where).name,
        "method": method,
        "foreground": settings.foreground,
        "background": settings.background,
    }


def kept_labels(
    run: Run, protocol: dict[str, Any], pictures: RecordSource, maps: MapFolder
) -> Callable[[int], np.ndarray | None]:
    """The labels that a run was trained on, which need not be made again.

    Args:
        run: a run of IRNet or AMN.
        protocol: how the labels are to be made, see `labels_protocol`.
        pictures: any pictures.
        maps: their heat maps, of one method.

    Returns:
        Number of a picture -> its labels uint8 (H, W); None if the run has none of it, or if they were made in another
        way, of another picture of that name, or of other maps.
    """
    folder = run.directory / "labels"
    try:
        is_same = json.loads((folder / "protocol.json").read_text(encoding="utf-8")) == protocol
    except (OSError, ValueError):
        is_same = False
    masks, origins = MaskFolder(folder), Origins(folder)

    def labels_of(index: int) -> np.ndarray | None:
        name = pictures.ids[index]
        if not (is_same and masks.file(name).exists() and origins.knows(pictures, index, maps.inputs)):
            return None
        return masks.read(name, classes=len(run.class_names))[0]

    return labels_of
