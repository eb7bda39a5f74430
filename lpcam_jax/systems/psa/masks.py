"""psa's pseudo masks: heat maps and a constant background, spread by a random walk among similar positions.

The labels of a picture are the classes of its heat maps.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from ...data.records import Record, RecordSource
from ...data.resizing import resize_mask
from ...inference.forward import as_they_are
from ...inference.passes import finish_each
from ...inference.plan import Outputs
from ...machine.devices import local_mesh
from ...refine.walks import similar_labels
from ...results.folder import write_all
from ...results.masks import MaskResults
from ...results.predictions import mapped_pictures, read_protocol
from ...results.shown import Pages
from ...seeds import with_class_values
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, network_of
from ..protocol import model_protocol, precision_of
from .labels import shrunk_maps
from .network import AffinityNet


def make_pseudo_masks(
    run: Run, state: TrainState, source: RecordSource, maps: str | Path, out: str | Path, *, pages: Pages
) -> dict[str, Any] | None:
    """Refine the maps of every picture that has no mask yet, then score all pictures.

    Args:
        run: a run of the affinity network, with the inference settings.
        state: its parameters and batch statistics.
        source: the pictures; those without maps are left out and reported.
        maps: folder of their heat maps.
        out: output folder.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: there are no such maps, they do not match the pictures, or the folder cannot be written.
    """
    inference, classes = run.config.inference, len(run.class_names)
    source, heatmaps = mapped_pictures(source, maps, inference.method or run.config.labels.method)
    [method] = heatmaps.methods
    walk = {name: getattr(inference, name) for name in ("radius", "beta", "steps")}
    protocol = model_protocol(
        run,
        state,
        maps=read_protocol(heatmaps) or Path(maps).name,
        method=method,
        background=inference.background,
        crf=False,
        refine="psa",
        saliency=False,
        precision=precision_of(run),
        **walk,
    )
    stride = network_of(run.config, classes).stride
    folder = MaskResults(out, protocol, title="Pseudo masks", caption="pseudo mask", pages=pages)

    def write(_: int, record: Record, features: np.ndarray) -> None:
        mapped, before = heatmaps.read_for(record, method, classes=classes)
        small = shrunk_maps(before, run.config.data.longest)
        mask = similar_labels(small, features, stride=stride, background=inference.background, **walk)
        folder.write(record, with_class_values(resize_mask(mask, before.shape[1:]), mapped))

    skipped = []
    if missing := folder.missing(source, heatmaps.inputs):
        network = inference_network(run.config, state, classes, devices=local_mesh())
        results = network.run(
            affinity_features,
            source,
            scales=[1.0],
            batches=inference,
            description="pseudo masks",
            only=missing,
            among=folder.share,
        )
        skipped = write_all(finish_each(results, lambda _, outputs: outputs[0]["features"]), write)
    return folder.finish(source, skipped)


def affinity_features(model: AffinityNet, pictures: jax.Array, sizes: jax.Array) -> Outputs:
    """Features of padded pictures, float32 (b, h', w', 448).

    psa pads pictures with zeros to whole positions of the grid, and these count as a part of them.
    """
    whole = -(-sizes // model.stride) * model.stride
    return {"features": model.features(as_they_are(model, pictures, sizes), whole)}
