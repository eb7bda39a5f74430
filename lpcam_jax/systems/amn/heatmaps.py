"""AMN's heat maps, written to a folder (`results.heatmaps`) next to the input heat maps.

    maps = AMN's class probabilities, stretched where the sure labels of the input maps are not background

The labels of a picture, an input of AMN, are the classes of its input maps.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Record, RecordSource
from ...inference.canvas import ScaleMaps
from ...machine.devices import local_mesh
from ...refine.pictures import Refinement, sure_labels
from ...results.folder import write_all
from ...results.heatmaps import HeatMapFolder
from ...results.picture_maps import PictureMaps
from ...results.predictions import mapped_pictures
from ...results.shown import Pages
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network
from ..protocol import model_protocol, precision_of
from ..sure_labels import kept_labels, labels_protocol
from .activation import activate
from .logits import activate_pictures

METHOD = "amn"


def make_amn_heatmaps(
    run: Run,
    state: TrainState,
    source: RecordSource,
    maps: str | Path,
    out: str | Path,
    *,
    refinement: Refinement,
    pages: Pages,
) -> dict[str, Any] | None:
    """Compute the missing heat maps, then score all pictures.

    Args:
        run: a run of AMN, with the inference settings.
        state: its parameters and batch statistics.
        source: the pictures; those without input maps are left out and reported.
        maps: folder of the input heat maps.
        out: output folder.
        refinement: how pseudo masks are made.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: there are no such maps, they do not match the pictures, or the folder cannot be written.
    """
    config, classes = run.config, len(run.class_names)
    inference, settings = config.inference, config.labels
    source, input_maps = mapped_pictures(source, maps, inference.method or settings.method)
    [method] = input_maps.methods
    label_protocol = labels_protocol(settings, input_maps, maps)
    protocol = model_protocol(
        run,
        state,
        classes="those of the maps",
        labels=label_protocol,
        scales=list(inference.scales),
        precision=precision_of(run),
        mirror=True,
        crf=False,
        background=inference.background,
    )
    methods = tuple(dict.fromkeys((method, METHOD)))  # only one if the input maps are AMN's too
    folder = HeatMapFolder(out, run.class_names, methods, protocol, refinement=refinement, pages=pages)
    stored_labels = kept_labels(run, label_protocol, source, input_maps)

    def labels_of(record: Record) -> np.ndarray:
        labels = np.zeros(classes, np.float32)
        labels[input_maps.read_classes(record.id, classes=classes)] = 1
        return labels

    def write(index: int, record: Record, logits: ScaleMaps) -> None:
        mapped, before = input_maps.read_for(record, method, classes=classes)
        seed = stored_labels(index)
        if seed is None:
            seed = sure_labels(record.image, before, foreground=settings.foreground, background=settings.background)
        by_method = {method: before, METHOD: activate(logits, mapped, seed)}
        folder.write(record, PictureMaps(mapped, by_method))

    skipped = []
    if missing := folder.missing(source, input_maps.inputs):
        network = inference_network(config, state, classes, devices=local_mesh())
        options = {"inference": inference, "only": missing, "among": folder.share}
        skipped = write_all(activate_pictures(network, source, labels_of, **options), write)
    return folder.finish(source, skipped)
