"""Before IRNet: what it is trained on, labels of the pixels that heat maps are sure of, kept with the run.

fg, bg = CRF of the seeds at a high and at a low threshold
label  = fg, where it is a class;  0, where both are background;  255, unsure, elsewhere

    labels/ID.png         palette PNG: 0 background, n + 1 class n, 255 unsure
    labels/protocol.json  what they were made with
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from .. import processes
from ..data.masks import MaskFolder
from ..data.records import RecordSource
from ..data.relabelled import Relabelled
from ..files import write_atomically
from ..predictions import open_method, read_protocol, with_maps
from ..refinement import crf_labels, cut
from ..report.palette import mask_png
from ..results import ResultFolder, write_all
from ..seeds import ir_labels
from .run import Run


def label_pictures(run: Run, pictures: RecordSource) -> Relabelled:
    """The pictures with their sure labels, which are made where they are missing.

    Args:
        run: of IRNet: its directory, and where the heat maps are.
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
    protocol = {
        "maps": read_protocol(maps) or Path(config.data.maps).name,
        "method": settings.method,
        "foreground": settings.foreground,
        "background": settings.background,
    }
    folder = ResultFolder(run.directory / "labels", protocol, what="labels", flag="--workdir")
    masks = MaskFolder(folder.directory)

    def write(index: int) -> None:
        record = pictures[index]
        classes, of_picture = maps.read_for(record, settings.method, classes=len(run.class_names))
        seeds = [cut(of_picture, threshold) for threshold in (settings.foreground, settings.background)]
        sure, possible = crf_labels(record.image, seeds, 1 + len(classes))
        values = np.arange(256, dtype=np.uint8)
        values[: 1 + len(classes)] = [0, *(classes + 1)]
        write_atomically(masks.file(record.id), mask_png(values[ir_labels(sure, possible)]))

    share = processes.share(range(len(pictures)))
    missing = [index for index in share if not masks.file(pictures.ids[index]).exists()]
    if missing:
        write_all(((index,) for index in tqdm(missing, "labels", unit="img")), write)
    processes.gather(np.zeros(0))  # the labels of all are there
    return Relabelled(pictures, masks)
