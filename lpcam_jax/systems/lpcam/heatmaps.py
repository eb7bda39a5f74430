"""Heat maps of a classifier and its prototypes, written to a folder (`results.heatmaps`).

prototypes.html   the prototypes of each class (`prototyping.prototype_gallery`)
"""

from pathlib import Path
from typing import Any

from ...data.records import RecordSource
from ...machine.devices import local_mesh
from ...prototypes import Prototypes
from ...refine.pictures import Refinement
from ...results.folder import write_all
from ...results.heatmaps import HeatMapFolder
from ...results.shown import Pages
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network, network_of
from ..protocol import model_protocol, precision_of
from ..prototyping.prototype_gallery import write_prototype_page
from .maps import map_pictures, methods_of, similarities


def make_heatmaps(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    out: str | Path,
    *,
    refinement: Refinement,
    pages: Pages,
) -> dict[str, Any] | None:
    """Compute the missing heat maps, then score all pictures.

    Args:
        run: the run, with the inference settings.
        state: its classifier.
        prototypes: its prototypes.
        source: the pictures.
        out: output folder.
        refinement: how pseudo masks are made.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    inference, classes, devices = run.config.inference, len(run.class_names), local_mesh()
    protocol = heatmap_protocol(run, state, prototypes, source)
    methods = methods_of(prototypes, inference)
    folder = HeatMapFolder(out, run.class_names, methods, protocol, refinement=refinement, pages=pages)
    skipped = []
    if missing := folder.missing(source):
        results = map_pictures(
            inference_network(run.config, state, classes, devices=devices),
            prototypes,
            source,
            stride=network_of(run.config, classes).backbone.strides[-1],
            inference=inference,
            only=missing,
            among=folder.share,
        )
        skipped = write_all(results, lambda _, record, maps: folder.write(record, maps))

    def more_pages() -> list[tuple[str, str]]:
        options = {"methods": methods, "similarities": similarities, "devices": devices}
        has_prototypes = write_prototype_page(run, state, prototypes, source, out, **options)
        return [("What the maps are made of: the prototypes of every class", "prototypes.html")] * has_prototypes

    return folder.finish(source, skipped, pages=more_pages)


def heatmap_protocol(run: Run, state: TrainState, prototypes: Prototypes, source: RecordSource) -> dict[str, Any]:
    """Describe how the maps of this model are made, as plain JSON values."""
    inference = run.config.inference
    return model_protocol(
        run,
        state,
        prototypes,
        classes="predicted" if source.labels is None else "labels",
        scales=list(inference.scales),
        precision=precision_of(run),
        mirror=True,
        crf=False,
        background=inference.background,
        probability=inference.probability,
        **({} if inference.affinity is None else {"affinity": inference.affinity}),
        **({} if inference.seeds == "last" else {"seeds": inference.seeds}),
    )
