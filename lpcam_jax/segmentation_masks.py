"""Masks of a segmentation network, in a folder (`mask_results`)."""

from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from . import __version__
from .config import SegmentationInference, at_precision
from .data.records import RecordSource
from .mask_results import MaskResults
from .models.folding import fold_batch_norm
from .results import fingerprint, write_all
from .segmentation import segment_pictures
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of


def make_masks(
    run: Run,
    state: TrainState,
    source: RecordSource,
    out: str | Path,
    *,
    inference: SegmentationInference,
    devices: Mesh,
) -> dict[str, Any] | None:
    """Segment every picture that has no mask yet, then score all of them.

    Args:
        run: of the segmentation network.
        state: its parameters and statistics.
        source: the pictures.
        out: the folder.
        inference: scales and mirror images.
        devices: the mesh of this process.

    Returns:
        What was written to metrics.json; None in all processes but the first.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    folder = MaskResults(out, protocol_of(run, state, inference), title="Segmentation masks", caption="segmentation")
    skipped: list[str] = []
    if missing := folder.missing(source):
        graph, *_ = graph_of(at_precision(run.config, inference), len(run.class_names))
        graph, *folded = fold_batch_norm(graph, state.parameters, state.batch_stats)
        segment = segment_pictures(graph, inference=inference, devices=devices)
        results = segment(folded, source, skipped=skipped, only=missing)
        write_all(results, lambda _, record, mask: folder.write(record, mask))
    return folder.finish(source, skipped)


def protocol_of(run: Run, state: TrainState, inference: SegmentationInference) -> dict[str, Any]:
    """How the masks of this model are made, as plain JSON values; other parameters give another `model`."""
    return {
        "version": __version__,
        "model": fingerprint((state.parameters, state.batch_stats)),
        "step": int(state.step),
        "trained_on": Path(run.config.data.masks).name or run.config.data.masks or "true masks",
        "class_names": list(run.class_names),
        "scales": list(inference.scales),
        "precision": at_precision(run.config, inference).model.precision,
        "mirror": inference.mirror,
        "crf": False,
    }
