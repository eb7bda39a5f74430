"""A folder of heat maps: written picture by picture, continued after a stop, scored as a whole.

    maps/ID.npz       classes (n,) and their names; cam, lpcam_f, lpcam, and taught where that was: float16 (n, H, W),
                      in [0, 1]; probabilities (c,) of all classes. No pickle.
    overlays/ID.png   picture, seed, truth, and every class's maps side by side
    seeds/ID.png      seed mask of the last of these as a palette PNG: 0 background, class n + 1
    pseudo_masks/     the same, refined (`refinement`), unless that is not wanted
    index.html        all of them (`heatmap_gallery`), to filter, sort and threshold; gallery/ holds its pictures
    prototypes.html   what each class is made of (`prototype_gallery`)
    metrics.json      Table 1, confusion matrices, and what they were made with; thresholds.png its curve (both where
                      there are masks)
    protocol.json     what the maps were made with

The npz is written last: where it stands, the picture is done. (A folder from before there was a gallery is made anew.)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from . import __version__, processes
from .config import Inference, at_precision
from .data.masks import MaskFolder
from .data.records import Record, RecordSource
from .files import write_atomically
from .heatmap_gallery import gallery_layers, pseudo_mask_line, write_heatmap_gallery
from .inference import PictureMaps, map_pictures, methods_of
from .predictions import MapFolder
from .prototype_gallery import write_prototype_page
from .prototypes import Prototypes
from .refinement import Refiner, cut, refinement_protocol, refiner
from .report.curve import seed_curves
from .report.gallery import layer_file, write_layer
from .report.names import title
from .report.overlays import panel, png
from .report.palette import mask_png
from .report.table import empty_maps_line, seed_tables
from .results import ResultFolder, all_skipped, fingerprint, skipped_line, write_all
from .scoring import score_maps, score_masks
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of


class HeatMapFolder(ResultFolder):
    """The folder, of one model and one protocol.

    Args:
        directory: made when it is not there.
        class_names: c names.
        methods: of the maps; seeds are cut from the last.
        protocol: plain JSON values that say how the maps are made; a folder with another protocol is refused.
        refined: what becomes of the last method's maps beside their seeds; None: nothing.

    Raises:
        UserError: as `ResultFolder`.
    """

    def __init__(
        self,
        directory: str | Path,
        class_names: tuple[str, ...],
        methods: tuple[str, ...],
        protocol: dict[str, Any],
        *,
        refined: Refiner | None = None,
    ):
        super().__init__(directory, protocol, what="heat maps")
        self.class_names, self.refined = class_names, refined
        self.maps = MapFolder(self.directory / "maps", methods)
        self.pseudo_masks = MaskFolder(self.directory / "pseudo_masks")

    def is_done(self, name: str) -> bool:
        """Whether the picture's outputs are all there."""
        return self.maps.file(name).exists() and layer_file(self.directory, "photo", name).exists()

    def write(self, record: Record, result: PictureMaps, *, background: float) -> None:
        """Write one picture's outputs.

        Args:
            record: the picture.
            result: its maps.
            background: seed threshold.
        """
        values = np.concatenate([[0], result.classes + 1]).astype(np.uint8)
        best = result.maps[self.maps.methods[-1]]
        seed = values[cut(best, background)]
        refined = values[self.refined(record, best)] if self.refined else None
        stored = {method: np.moveaxis(result.maps[method], -1, 0) for method in self.maps.methods}
        names = [self.class_names[n] for n in result.classes]
        if record.labels is None:
            names = [f"{name} {result.probabilities[n]:.0%}" for name, n in zip(names, result.classes, strict=True)]
        picture = panel(
            record.image,
            {title(method): maps for method, maps in stored.items()},
            names,
            seed,
            record.mask,
            refined=refined,
            class_values=[int(n) + 1 for n in result.classes],
        )
        for key, layer in gallery_layers(record, result.classes, stored, refined):
            write_layer(self.directory, key, record.id, layer)
        write_atomically(self.file("overlays", record.id, "png"), png(picture))
        write_atomically(self.file("seeds", record.id, "png"), mask_png(seed))
        if refined is not None:
            write_atomically(self.pseudo_masks.file(record.id), mask_png(refined))
        probabilities = result.probabilities.astype(np.float32)
        self.maps.write(record.id, result.classes, self.class_names, stored, probabilities=probabilities)


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
    missing = [index for index in processes.share(range(len(source))) if not folder.is_done(source.ids[index])]
    if missing:
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
    skipped = all_skipped(skipped, source)
    if not processes.is_first():
        return None
    scores, of_pictures = score_maps(folder.maps, source)
    metrics = {
        "pictures": len(source) - len(skipped),
        "skipped": skipped,
        "protocol": folder.protocol,
        **scores,
    }
    if "scores" in metrics and folder.refined:
        metrics["pseudo_masks"] = score_masks(folder.pseudo_masks, source)[0]["scores"]
    if "scores" in metrics:
        seed_curves(Path(out) / "thresholds.png", metrics["scores"], pictures=metrics["scored"])
    folder.write_json("metrics.json", metrics)
    has_prototypes = write_prototype_page(run, state, prototypes, source, out, devices=devices)
    write_heatmap_gallery(
        folder.directory,
        folder.maps,
        run.class_names,
        source,
        metrics,
        {name: one for name, one in of_pictures.items() if folder.is_done(name)},
        refined=bool(folder.refined),
        links=[("What the maps are made of: the prototypes of every class", "prototypes.html")] * has_prototypes,
    )
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
        "precision": at_precision(run.config, inference).model.precision,
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
        for one, other in (("lpcam", "cam"), ("taught", "lpcam")):
            if one not in scores:
                continue
            best, fixed = (100 * (scores[one][at]["miou"] - scores[other][at]["miou"]) for at in ("best", "fixed"))
            yield (
                f"{title(one)} against {title(other)} on {metrics['scored']} pictures: {best:+.1f} points of mIoU, "
                f"each at its own best threshold; {fixed:+.1f} at {scores['cam']['fixed']['threshold']:g}."
            )
        yield from pseudo_mask_line(metrics)
    yield from empty_maps_line(metrics["empty_maps"])
    yield from skipped_line(metrics["skipped"])
