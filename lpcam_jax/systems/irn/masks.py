"""IRN's pseudo masks: heat maps spread by a random walk up to IRNet's edges, written to a folder (`results.masks`).

    maps/ID.npz   classes (n,) and their names; irn, float16 (n, H, W): the maps after the walk, in [0, 1]

The labels of a picture are the classes of its heat maps.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...data.records import Record, RecordSource
from ...machine.devices import local_mesh
from ...refine.pictures import cut
from ...refine.walks import walked_maps
from ...report.table import seed_tables
from ...results.folder import write_all
from ...results.map_folder import MapFolder
from ...results.masks import MaskResults
from ...results.masks import describe as describe_masks
from ...results.predictions import mapped_pictures, read_protocol
from ...results.scoring import score_maps
from ...results.shown import Pages
from ...seeds import with_class_values
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network
from ..protocol import model_protocol, precision_of
from .edges import detect_edges

BACKGROUND = 0.35


def make_pseudo_masks(
    run: Run, state: TrainState, source: RecordSource, maps: str | Path, out: str | Path, *, pages: Pages
) -> dict[str, Any] | None:
    """Refine the maps of every picture that has no mask yet, then score all pictures.

    Args:
        run: a run of IRNet, with the inference settings.
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
    background = BACKGROUND if inference.background is None else inference.background
    walk = {name: getattr(inference, name) for name in ("radius", "power", "beta", "steps")}
    protocol = model_protocol(
        run,
        state,
        maps=read_protocol(heatmaps) or Path(maps).name,
        method=method,
        background=background,
        crf=False,
        refine="irn",
        saliency=False,
        precision=precision_of(run),
        **walk,
    )
    folder = MaskResults(out, protocol, title="Pseudo masks", caption="pseudo mask", pages=pages)
    walked = MapFolder(folder.directory / "maps", ("irn",))

    def write(_: int, record: Record, edges: np.ndarray) -> None:
        mapped, before = heatmaps.read_for(record, method, classes=classes)
        after = walked_maps(before, edges, **walk)
        walked.write(record.id, mapped, run.class_names, {"irn": after})
        folder.write(record, with_class_values(cut(after, background), mapped))

    skipped = []
    if missing := folder.missing(source, heatmaps.inputs):
        network = inference_network(run.config, state, classes, devices=local_mesh())
        results = detect_edges(
            network, source, batches=inference, description="pseudo masks", only=missing, among=folder.share
        )
        skipped = write_all(results, write)

    def map_scores() -> dict[str, Any]:
        """Scores of the walked maps at every threshold, since the best one is known only with true masks."""
        scores = score_maps(walked, source)[0] if source.has_masks else {}
        return {"maps": {key: scores[key] for key in ("empty_maps", "scores")}} if "scores" in scores else {}

    return folder.finish(source, skipped, more=map_scores)


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """Summarize the metrics for the terminal, line by line."""
    if "maps" in metrics:
        yield "The maps after the random walk:"
        yield from seed_tables(metrics["maps"]["scores"], metrics["protocol"]["class_names"])
        yield f"The pseudo masks, cut at {metrics['protocol']['background']:g}:"
    yield from describe_masks(metrics)
