"""Heat maps of a classifier and its prototypes, in a folder (`heatmap_results`).

prototypes.html   what each class is made of (`prototype_gallery`)
"""

from pathlib import Path
from typing import Any, Literal

from jax.sharding import Mesh

from . import __version__
from .config import Inference, at_precision
from .data.records import RecordSource
from .heatmap_results import HeatMapFolder
from .inference import map_pictures, methods_of
from .prototype_gallery import write_prototype_page
from .prototypes import Prototypes
from .refinement import refinement_protocol, refiner
from .results import fingerprint, write_all
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of


def make_heatmaps(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    out: str | Path,
    *,
    refine: Literal["crf", "none"],
    saliency: str = "",
    inference: Inference,
    devices: Mesh,
) -> dict[str, Any] | None:
    """Map every picture that is not mapped yet, then score all of them.

    Args:
        run: the run, for its config.
        state: its classifier.
        prototypes: its prototypes.
        source: the pictures.
        out: the folder.
        refine: how pseudo masks are made, as for `refiner`; "none": there are none.
        saliency: folder of saliency maps, or empty, as for `refiner`.
        inference: scales and thresholds.
        devices: the mesh of this process.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    protocol = protocol_of(run, state, prototypes, source, inference) | refinement_protocol(refine, saliency)
    refined = None if refine == "none" else refiner(refine, background=inference.background, saliency=saliency)
    folder = HeatMapFolder(out, run.class_names, methods_of(prototypes), protocol, refined=refined)
    skipped: list[str] = []
    if missing := folder.missing(source):
        graph, *_ = graph_of(at_precision(run.config, inference), len(run.class_names))
        results = map_pictures(
            graph,
            (state.parameters, state.batch_stats),
            prototypes,
            source,
            stride=run.config.model.output_stride,
            inference=inference,
            devices=devices,
            skipped=skipped,
            only=missing,
        )
        write_all(results, lambda _, record, maps: folder.write(record, maps, background=inference.background))

    def pages() -> list[tuple[str, str]]:
        has_prototypes = write_prototype_page(run, state, prototypes, source, out, devices=devices)
        return [("What the maps are made of: the prototypes of every class", "prototypes.html")] * has_prototypes

    return folder.finish(source, skipped, pages=pages)


def protocol_of(
    run: Run, state: TrainState, prototypes: Prototypes, source: RecordSource, inference: Inference
) -> dict[str, Any]:
    """How the maps of this model are made, as plain JSON values; other parameters give another `model`."""
    return {
        "version": __version__,
        "model": fingerprint((state.parameters, state.batch_stats, prototypes)),
        "step": int(state.step),
        "class_names": list(run.class_names),
        "classes": "predicted" if source.labels is None else "labels",
        "scales": list(inference.scales),
        "precision": at_precision(run.config, inference).model.precision,
        "mirror": True,
        "crf": False,
        "background": inference.background,
        "probability": inference.probability,
    }
