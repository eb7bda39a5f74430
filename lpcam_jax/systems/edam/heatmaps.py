"""EDAM's heat maps, written to a folder (`results.heatmaps`)."""

from pathlib import Path
from typing import Any

from ...data.records import RecordSource
from ...machine.devices import local_mesh
from ...refine.pictures import Refinement
from ...results.folder import write_all
from ...results.heatmaps import HeatMapFolder
from ...results.shown import Pages
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network
from ..protocol import model_protocol, precision_of
from .maps import METHOD, map_pictures


def make_edam_heatmaps(
    run: Run, state: TrainState, source: RecordSource, out: str | Path, *, refinement: Refinement, pages: Pages
) -> dict[str, Any] | None:
    """Compute the missing heat maps, then score all pictures.

    Args:
        run: a run of EDAM, with the inference settings.
        state: its parameters and batch statistics.
        source: the pictures.
        out: output folder.
        refinement: how pseudo masks are made.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    config, inference, crop = run.config, run.config.inference, run.config.training.crop
    protocol = model_protocol(
        run,
        state,
        classes="predicted" if source.labels is None else "labels",
        scales=list(inference.scales),
        precision=precision_of(run),
        mirror=True,
        crf=False,
        background=inference.background,
        probability=inference.probability,
    )
    folder = HeatMapFolder(out, run.class_names, (METHOD,), protocol, refinement=refinement, pages=pages)
    skipped = []
    if missing := folder.missing(source):
        network = inference_network(config, state, len(run.class_names), devices=local_mesh())
        options = {"inference": inference, "crop": crop, "only": missing, "among": folder.share}
        skipped = write_all(
            map_pictures(network, source, **options), lambda _, record, maps: folder.write(record, maps)
        )
    return folder.finish(source, skipped)
