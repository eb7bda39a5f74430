"""A folder of heat maps: written picture by picture, continued after a stop, scored as a whole.

    maps/ID.npz       classes (n,) and their names; cam, lpcam_f, lpcam: float16 (n, H, W), in [0, 1];
                      probabilities (c,) of all classes. No pickle.
    overlays/ID.png   picture, seed, truth, and every class's maps side by side
    seeds/ID.png      seed mask of LPCAM as a palette PNG: 0 background, class n + 1
    metrics.json      Table 1, confusion matrices, and what they were made with; thresholds.png its curve (both where
                      there are masks)
    protocol.json     what the maps were made with

The npz is written last: where it stands, the picture is done.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from . import __version__
from .config import Inference
from .data.records import Record, RecordSource
from .files import write_atomically
from .inference import METHODS, PictureMaps, map_pictures
from .predictions import MapFolder
from .prototype_gallery import write_prototype_page
from .prototypes import Prototypes
from .report.curve import seed_curves
from .report.names import title
from .report.overlays import panel, png
from .report.palette import mask_png
from .report.table import empty_maps_line, seed_tables
from .results import ResultFolder, fingerprint, report_skipped, skipped_line, write_all
from .scoring import score_maps
from .seeds import seed_mask
from .training.checkpoints import Run, TrainState
from .training.state import graph_of


class HeatMapFolder(ResultFolder):
    """The folder, of one model and one protocol.

    Args:
        directory: made when it is not there.
        class_names: c names.
        protocol: plain JSON values that say how the maps are made; a folder with another protocol is refused.

    Raises:
        UserError: as `ResultFolder`.
    """

    def __init__(self, directory: str | Path, class_names: tuple[str, ...], protocol: dict[str, Any]):
        super().__init__(directory, protocol, what="heat maps")
        self.class_names = class_names
        self.maps = MapFolder(self.directory / "maps", METHODS)

    def is_done(self, name: str) -> bool:
        """Whether the picture's outputs are all there."""
        return self.maps.file(name).exists()

    def write(self, record: Record, result: PictureMaps, *, background: float) -> None:
        """Write one picture's outputs.

        Args:
            record: the picture.
            result: its maps.
            background: seed threshold.
        """
        seed = np.zeros(record.image.shape[:2], np.uint8)
        if len(result.classes):
            values = np.concatenate([[0], result.classes + 1]).astype(np.uint8)
            seed = values[seed_mask(result.maps["lpcam"], np.ones(len(result.classes)), background=background)]
        stored = {method: np.moveaxis(result.maps[method], -1, 0) for method in METHODS}
        names = [self.class_names[n] for n in result.classes]
        if record.labels is None:
            names = [f"{name} {result.probabilities[n]:.0%}" for name, n in zip(names, result.classes, strict=True)]
        picture = panel(
            record.image,
            {title(method): maps for method, maps in stored.items()},
            names,
            seed,
            record.mask,
            class_values=[int(n) + 1 for n in result.classes],
        )
        buffer = io.BytesIO()
        np.savez(
            buffer,
            classes=result.classes.astype(np.int16),
            names=np.array([self.class_names[n] for n in result.classes], dtype=str),
            probabilities=result.probabilities.astype(np.float32),
            **{method: maps.astype(np.float16) for method, maps in stored.items()},
        )
        write_atomically(self.file("overlays", record.id, "png"), png(picture))
        write_atomically(self.file("seeds", record.id, "png"), mask_png(seed))
        write_atomically(self.maps.file(record.id), buffer.getvalue())


def make_heatmaps(
    run: Run,
    state: TrainState,
    prototypes: Prototypes,
    source: RecordSource,
    out: str | Path,
    *,
    inference: Inference,
    devices: Mesh,
) -> dict[str, Any]:
    """Map every picture that is not mapped yet, then score all of them.

    Args:
        run: the run, for its config.
        state: its classifier.
        prototypes: its prototypes.
        source: the pictures.
        out: the folder.
        inference: scales and thresholds.
        devices: the mesh.

    Returns:
        What was written to metrics.json.

    Raises:
        UserError: the folder cannot be written, or no picture could be read.
    """
    folder = HeatMapFolder(out, run.class_names, protocol_of(run, state, prototypes, source, inference))
    skipped: list[str] = []
    missing = [index for index, name in enumerate(source.ids) if not folder.is_done(name)]
    if missing:
        graph, *_ = graph_of(run.config, len(run.class_names))
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
    report_skipped(skipped, source)
    metrics = {
        "pictures": len(source) - len(skipped),
        "skipped": skipped,
        "protocol": folder.protocol,
        **score_maps(folder.maps, source),
    }
    if "scores" in metrics:
        seed_curves(Path(out) / "thresholds.png", metrics["scores"], pictures=metrics["scored"])
    folder.write_json("metrics.json", metrics)
    write_prototype_page(run, state, prototypes, source, out, devices=devices)
    return metrics


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
        "mirror": True,
        "crf": False,
        "background": inference.background,
        "probability": inference.probability,
    }


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """What a person wants to read of the metrics, line by line."""
    if "scores" in metrics:
        scores = metrics["scores"]
        yield from seed_tables(scores, metrics["protocol"]["class_names"])
        best, fixed = (100 * (scores["lpcam"][at]["miou"] - scores["cam"][at]["miou"]) for at in ("best", "fixed"))
        yield (
            f"LPCAM against CAM on {metrics['scored']} pictures: {best:+.1f} points of mIoU, each at its own best "
            f"threshold; {fixed:+.1f} at {scores['cam']['fixed']['threshold']:g}."
        )
    yield from empty_maps_line(metrics["empty_maps"])
    yield from skipped_line(metrics["skipped"])
