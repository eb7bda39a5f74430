"""Pseudo masks: heat maps refined by IRN's random walk, by a CRF, or cut as they are, in a folder (`mask_results`).

    maps/ID.npz   of the random walk: classes (n,) and their names; irn, float16 (n, H, W): the maps after it, in [0, 1]

What a picture's labels are its heat maps say.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from . import __version__
from .config import IRNConfig, Refinement, at_precision
from .data.records import Record, RecordSource
from .edges import detect_edges
from .errors import UserError
from .mask_results import MaskResults
from .mask_results import describe as describe_masks
from .predictions import MapFolder, open_method, read_protocol, with_maps
from .refinement import cut, refinement_protocol, refiner, walked_maps
from .report.table import seed_tables
from .results import fingerprint, write_all
from .scoring import score_maps
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of

Refine = Literal["irn", "crf", "none"]
BACKGROUND = {"irn": 0.35, "crf": 0.3, "none": 0.3}


def make_pseudo_masks(
    run: Run,
    state: TrainState | None,
    source: RecordSource,
    maps: str | Path,
    out: str | Path,
    *,
    refine: Refine,
    saliency: str = "",
    inference: Refinement,
    devices: Mesh,
) -> dict[str, Any] | None:
    """Refine the maps of every picture that has no mask yet, then score all of them.

    Args:
        run: IRNet's, for the random walk; else any, for its data set.
        state: IRNet's parameters; None: there is no random walk.
        source: the pictures; those without maps are left out, and counted.
        maps: the folder of their heat maps.
        out: the folder of the masks.
        refine: how.
        saliency: folder of saliency maps, with "crf": EDAM's rule; empty: none.
        inference: whose maps, threshold, random walk.
        devices: the mesh of this process.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: there are no such maps, they do not fit, or the folder cannot be written.
    """
    trained_on = run.config.labels.method if isinstance(run.config, IRNConfig) else ""
    heatmaps = open_method(maps, inference.method or trained_on, ids=source.ids)
    [method] = heatmaps.methods
    source = with_maps(source, heatmaps)
    background = BACKGROUND[refine] if inference.background is None else inference.background
    protocol = {
        "version": __version__,
        "class_names": list(run.class_names),
        "maps": read_protocol(heatmaps) or Path(maps).name,
        "method": method,
        "background": None if saliency else background,
        "crf": refine == "crf",
        **refinement_protocol(refine, saliency),
    }
    if state:
        walk = {name: getattr(inference, name) for name in ("radius", "power", "beta", "steps")}
        precision = at_precision(run.config, inference).model.precision
        protocol |= {"model": fingerprint(state.parameters), "step": int(state.step), "precision": precision, **walk}
    else:
        refined = refiner(refine, background=background, saliency=saliency)

    folder = MaskResults(out, protocol, title="Pseudo masks", caption="pseudo mask")
    walked = MapFolder(folder.directory / "maps", ("irn",))

    def write(_: int, record: Record, edges: np.ndarray | None) -> None:
        classes, of_picture = heatmaps.read_for(record, method, classes=len(run.class_names))
        if state:
            of_picture = walked_maps(of_picture, edges, **walk)
            walked.write(record.id, classes, run.class_names, {"irn": np.moveaxis(of_picture, -1, 0)})
        mask = cut(of_picture, background) if state else refined(record, of_picture)
        folder.write(record, np.concatenate([[0], classes + 1]).astype(np.uint8)[mask])

    skipped: list[str] = []
    if missing := folder.missing(source):
        if state:
            graph, *_ = graph_of(at_precision(run.config, inference), len(run.class_names))
            detect = detect_edges(graph, inference=inference, devices=devices)
            results = detect(
                (state.parameters, state.batch_stats),
                source,
                skipped=skipped,
                description="pseudo masks",
                only=missing,
            )
        else:
            results = _without_edges(source, missing, skipped)
        write_all(results, write)

    def more() -> dict[str, Any]:
        """The maps after the walk, at every threshold: which one is best only true masks can tell."""
        scores = score_maps(walked, source)[0] if state and source.has_masks else {}
        return {"maps": {key: scores[key] for key in ("empty_maps", "scores")}} if "scores" in scores else {}

    return folder.finish(source, skipped, more=more)


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """What a person wants to read of the metrics, line by line."""
    if "maps" in metrics:
        yield "The maps after the random walk:"
        yield from seed_tables(metrics["maps"]["scores"], metrics["protocol"]["class_names"])
        yield f"The pseudo masks, cut at {metrics['protocol']['background']:g}:"
    yield from describe_masks(metrics)


def _without_edges(
    source: RecordSource, indices: Sequence[int], skipped: list[str]
) -> Iterator[tuple[int, Record, None]]:
    """The records of these pictures, with a progress bar; one that cannot be read is skipped."""
    for index in tqdm(indices, "pseudo masks", unit="img"):
        try:
            record = source[index]
        except UserError as error:
            skipped.append(str(error))
        else:
            yield index, record, None
