"""Heat maps of AMN, in a folder (`heatmap_results`), beside those that they start from.

    maps = probabilities of AMN, which is told the labels, stretched where the other maps are not sure of background

What a picture's labels are the other maps say.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from . import __version__
from .activations import activate_pictures
from .config import AMNInference, at_precision
from .data.records import Record, RecordSource
from .heatmap_results import HeatMapFolder
from .inference import PictureMaps
from .predictions import open_method, with_maps
from .refine.amn import activation_maps
from .refinement import refinement_protocol, refiner, sure_labels
from .results import fingerprint, write_all
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of
from .training.sure_labels import kept_labels, labels_protocol

METHOD = "amn"


def make_amn_heatmaps(
    run: Run,
    state: TrainState,
    source: RecordSource,
    maps: str | Path,
    out: str | Path,
    *,
    refine: Literal["crf", "none"],
    saliency: str = "",
    inference: AMNInference,
    devices: Mesh,
) -> dict[str, Any] | None:
    """Map every picture that is not mapped yet, then score all of them.

    Args:
        run: of AMN, for its config and its labels.
        state: its parameters and statistics.
        source: the pictures; those without maps to start from are left out, and counted.
        maps: the folder of the heat maps to start from.
        out: the folder.
        refine: how pseudo masks are made, as for `refiner`; "none": there are none.
        saliency: folder of saliency maps, or empty, as for `refiner`.
        inference: scales, threshold, and whose maps it starts from.
        devices: the mesh of this process.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: there are no such maps, they do not fit, or the folder cannot be written.
    """
    config, classes = run.config, len(run.class_names)
    sure = config.labels
    before = open_method(maps, inference.method or sure.method, ids=source.ids)
    [method] = before.methods
    source = with_maps(source, before)
    of_labels = labels_protocol(sure, before, maps)
    protocol = {
        "version": __version__,
        "model": fingerprint((state.parameters, state.batch_stats)),
        "step": int(state.step),
        "class_names": list(run.class_names),
        "classes": "those of the maps",
        "labels": of_labels,
        "scales": list(inference.scales),
        "precision": at_precision(config, inference).model.precision,
        "mirror": True,
        "crf": False,
        "background": inference.background,
        **refinement_protocol(refine, saliency),
    }
    refined = None if refine == "none" else refiner(refine, background=inference.background, saliency=saliency)
    methods = tuple(dict.fromkeys((method, METHOD)))  # one, where AMN starts from maps of AMN
    folder = HeatMapFolder(out, run.class_names, methods, protocol, refined=refined)
    kept = kept_labels(run, of_labels)

    def labels_of(record: Record) -> np.ndarray:
        labels = np.zeros(classes, np.float32)
        labels[before.read_classes(record.id, classes=classes)] = 1
        return labels

    def write(_: int, record: Record, logits: np.ndarray) -> None:
        of_maps, start = before.read_for(record, method, classes=classes)
        if kept and kept.file(record.id).exists():
            seed, _ = kept.read(record.id, classes=classes)
        else:
            seed = sure_labels(record.image, start, foreground=sure.foreground, background=sure.background)
        found = {method: start, METHOD: activation_maps(logits, of_maps, seed)}
        folder.write(record, PictureMaps(of_maps, found), background=inference.background)

    skipped: list[str] = []
    if missing := folder.missing(source):
        graph, *_ = graph_of(at_precision(config, inference), classes)
        results = activate_pictures(
            graph,
            (state.parameters, state.batch_stats),
            source,
            labels_of,
            inference=inference,
            devices=devices,
            skipped=skipped,
            only=missing,
        )
        write_all(results, write)
    return folder.finish(source, skipped)
