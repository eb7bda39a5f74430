"""Heat maps of AMN, in a folder (`heatmap_results`), beside those that they start from.

    maps = probabilities of AMN, which is told the labels, stretched where the other maps are not sure of background

The labels of a picture are the classes of its other maps.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Record, RecordSource
from ...machine.devices import local_mesh
from ...refine.pictures import Refinement, sure_labels
from ...results.folder import write_all
from ...results.heatmaps import HeatMapFolder
from ...results.picture_maps import PictureMaps
from ...results.predictions import open_method, with_maps
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network
from ..protocol import model_protocol, precision_of
from ..sure_labels import kept_labels, labels_protocol
from .activation import activation_maps
from .logits import activate_pictures

METHOD = "amn"


def make_amn_heatmaps(
    run: Run, state: TrainState, source: RecordSource, maps: str | Path, out: str | Path, *, refinement: Refinement
) -> dict[str, Any] | None:
    """Map every picture that is not mapped yet, then score all of them.

    Args:
        run: of AMN, with the settings of inference, and its labels.
        state: its parameters and statistics.
        source: the pictures; those without maps to start from are left out, and counted.
        maps: the folder of the heat maps to start from.
        out: the folder.
        refinement: how pseudo masks are made.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: there are no such maps, they do not fit, or the folder cannot be written.
    """
    config, classes = run.config, len(run.class_names)
    inference, settings = config.inference, config.labels
    before = open_method(maps, inference.method or settings.method, ids=source.ids)
    [method] = before.methods
    source = with_maps(source, before)
    label_protocol = labels_protocol(settings, before, maps)
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
    methods = tuple(dict.fromkeys((method, METHOD)))  # a single one, where AMN starts from maps of AMN
    folder = HeatMapFolder(out, run.class_names, methods, protocol, refinement=refinement)
    kept = kept_labels(run, label_protocol)

    def labels_of(record: Record) -> np.ndarray:
        labels = np.zeros(classes, np.float32)
        labels[before.read_classes(record.id, classes=classes)] = 1
        return labels

    def write(_: int, record: Record, logits: np.ndarray) -> None:
        mapped, start = before.read_for(record, method, classes=classes)
        if kept and kept.file(record.id).exists():
            seed, _ = kept.read(record.id, classes=classes)
        else:
            seed = sure_labels(record.image, start, foreground=settings.foreground, background=settings.background)
        by_method = {method: start, METHOD: activation_maps(logits, mapped, seed)}
        folder.write(record, PictureMaps(mapped, by_method))

    skipped = []
    if missing := folder.missing(source):
        network = inference_network(config, state, classes, devices=local_mesh())
        skipped = write_all(activate_pictures(network, source, labels_of, inference=inference, only=missing), write)
    return folder.finish(source, skipped)
