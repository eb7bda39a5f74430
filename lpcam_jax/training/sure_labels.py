"""What IRNet and AMN are trained on: labels of the pixels that heat maps are sure of, kept with the run.

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

from .. import processes
from ..config import SureLabels
from ..data.masks import MaskFolder
from ..data.records import RecordSource
from ..data.relabelled import Relabelled
from ..files import write_atomically
from ..predictions import MapFolder, open_method, read_protocol, with_maps
from ..refinement import sure_labels
from ..report.palette import mask_png
from ..results import ResultFolder, write_all
from .run import Run


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

    def write(index: int) -> None:
        record = pictures[index]
        classes, of_picture = maps.read_for(record, protocol["method"], classes=len(run.class_names))
        sure = sure_labels(record.image, of_picture, foreground=settings.foreground, background=settings.background)
        values = np.arange(256, dtype=np.uint8)
        values[: 1 + len(classes)] = [0, *(classes + 1)]
        write_atomically(masks.file(record.id), mask_png(values[sure]))

    share = processes.share(range(len(pictures)))
    missing = [index for index in share if not masks.file(pictures.ids[index]).exists()]
    if missing:
        write_all(((index,) for index in tqdm(missing, "labels", unit="img")), write)
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
