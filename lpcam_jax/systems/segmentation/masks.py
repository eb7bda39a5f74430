"""Masks of a segmentation network, written to a folder (`results.masks`)."""

from pathlib import Path
from typing import Any

from ...data.records import RecordSource
from ...machine.devices import local_mesh
from ...results.folder import write_all
from ...results.masks import MaskResults
from ...results.shown import Pages
from ...training.checkpoints import TrainState
from ...training.run import Run
from ...training.state import inference_network
from ..protocol import model_protocol, precision_of
from .segment import segment_pictures


def make_masks(
    run: Run, state: TrainState, source: RecordSource, out: str | Path, *, pages: Pages
) -> dict[str, Any] | None:
    """Segment every picture that has no mask yet, then score all pictures.

    Args:
        run: a run of the segmentation network, with the inference settings.
        state: its parameters and batch statistics.
        source: the pictures.
        out: output folder.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    inference = run.config.inference
    protocol = model_protocol(
        run,
        state,
        trained_on=Path(run.config.data.masks).name or run.config.data.masks or "true masks",
        scales=list(inference.scales),
        precision=precision_of(run),
        mirror=inference.mirror,
        crf=inference.crf or False,
        **({"fusion": inference.fusion} if inference.fusion != "mean" else {}),
        **({"fit": list(inference.fit)} if inference.fit else {}),
    )
    folder = MaskResults(out, protocol, title="Segmentation masks", caption="segmentation", pages=pages)
    skipped = []
    if missing := folder.missing(source):
        network = inference_network(run.config, state, len(run.class_names), devices=local_mesh())
        results = segment_pictures(network, source, inference=inference, only=missing, among=folder.share)
        skipped = write_all(results, lambda _, record, mask: folder.write(record, mask))
    return folder.finish(source, skipped)
