"""A folder of heat maps: written picture by picture, continued after a stop, scored as a whole.

    maps/ID.npz       classes (n,) and their names; cam, lpcam_f, lpcam, and taught where that was: float16 (n, H, W),
                      in [0, 1]; probabilities (c,) of all classes. No pickle.
    overlays/ID.png   picture, seed, truth, and every class's maps side by side
    seeds/ID.png      seed mask of the last of these as a palette PNG: 0 background, class n + 1
    pseudo_masks/     the same, refined (`refinement`), unless that is not wanted
    index.html        all of them, to filter, sort and threshold; gallery/ holds its pictures
    prototypes.html   what each class is made of (`prototype_gallery`)
    metrics.json      Table 1, confusion matrices, and what they were made with; thresholds.png its curve (both where
                      there are masks)
    protocol.json     what the maps were made with

The npz is written last: where it stands, the picture is done. (A folder from before there was a gallery is made anew.)
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jax.sharding import Mesh

from . import __version__, processes
from .config import Inference, at_precision
from .data.masks import MaskFolder
from .data.pictures import picture_size
from .data.records import Record, RecordSource
from .files import write_atomically
from .inference import PictureMaps, map_pictures, methods_of
from .predictions import MapFolder
from .prototype_gallery import write_prototype_page
from .prototypes import Prototypes
from .refinement import Refiner, cut, refinement_protocol, refiner
from .report.curve import seed_curves
from .report.gallery import Entry, Gallery, Look, Pane, layer_file, write_gallery, write_layer
from .report.layers import map_layer, mask_layer, photo_layer, picture_colors, seed_layer
from .report.names import title
from .report.overlays import panel, png
from .report.palette import mask_png
from .report.table import empty_maps_line, seed_tables
from .results import ResultFolder, all_skipped, fingerprint, skipped_line, write_all
from .scoring import FIXED, PictureScore, classes_in, score_maps, score_masks
from .training.checkpoints import TrainState
from .training.run import Run
from .training.state import graph_of


def _panes(shown: Sequence[str]) -> list[Pane]:
    """What the gallery shows of a picture beside the photograph, of these methods."""
    return [
        *(Pane(method, title(method), "map", method) for method in shown),
        Pane("truth", "ground truth", "mask"),
        *(Pane(f"seed_{method}", f"seed of {title(method)}", "seed", method) for method in shown),
        Pane("refined", "pseudo mask", "mask"),
    ]


def _looks(shown: Sequence[str]) -> list[Look]:
    """Which of them side by side; the last method is the one that is refined."""
    seed = f"seed_{shown[-1]}"
    return [
        Look("heat maps", tuple(shown)),
        Look("seeds", tuple(f"seed_{method}" for method in shown)),
        Look("seed and pseudo mask", (seed, "refined")),
        Look("pseudo mask and ground truth", ("refined", "truth")),
        Look("seed and ground truth", (seed, "truth")),
    ]


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
        self.shown = [method for method in methods if method != "lpcam_f"]
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
        for key, layer in _layers(record, result.classes, {method: stored[method] for method in self.shown}, refined):
            write_layer(self.directory, key, record.id, layer)
        write_atomically(self.file("overlays", record.id, "png"), png(picture))
        write_atomically(self.file("seeds", record.id, "png"), mask_png(seed))
        if refined is not None:
            write_atomically(self.pseudo_masks.file(record.id), mask_png(refined))
        probabilities = result.probabilities.astype(np.float32)
        self.maps.write(record.id, result.classes, self.class_names, stored, probabilities=probabilities)

    def entry(self, name: str, score: PictureScore, *, predicted: bool) -> Entry:
        """The picture in the gallery.

        Args:
            name: its id.
            score: what is known of its maps.
            predicted: whether its classes are; then their probabilities are noted.
        """
        classes = _shown_classes(score.classes, score.truth)
        note = ""
        if predicted:
            probabilities = self.maps.read_one(name, "probabilities")
            note = ", ".join(f"{self.class_names[n]} {probabilities[n]:.0%}" for n in score.classes)
        return Entry(
            name,
            picture_size(layer_file(self.directory, "photo", name))[::-1],
            tuple(self.class_names[n] for n in classes),
            tuple(picture_colors(classes)),
            len(score.classes),
            {method: score.miou[method] for method in self.shown if method in score.miou},
            score.disagreement,
            tuple(one.key for one in _panes(self.shown) if not layer_file(self.directory, one.key, name).exists()),
            note,
        )


def _shown_classes(mapped: np.ndarray, truth: np.ndarray) -> list[int]:
    """The classes that have maps, and then those that only the truth has."""
    return [*map(int, mapped), *(int(n) for n in truth if n not in mapped)]


def _layers(
    record: Record, classes: np.ndarray, maps: dict[str, np.ndarray], refined: np.ndarray | None
) -> Iterator[tuple[str, bytes]]:
    """What the gallery lays over the photograph, and that; maps are float (n, H, W)."""
    truth = classes_in(record.mask)
    shown = _shown_classes(classes, truth)
    colors = picture_colors(shown)
    yield "photo", photo_layer(record.image)
    if len(classes):
        for method, of_method in maps.items():
            yield method, map_layer(of_method)
            yield f"seed_{method}", seed_layer(of_method, colors[: len(classes)])
    for key, mask in (("refined", refined), ("truth", record.mask)):
        if mask is not None:
            yield key, mask_layer(mask, shown, colors)


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
    predicted = source.labels is None
    entries = [
        folder.entry(name, one, predicted=predicted) for name, one in of_pictures.items() if folder.is_done(name)
    ]
    has_prototypes = write_prototype_page(run, state, prototypes, source, out, devices=devices)
    links = [("What the maps are made of: the prototypes of every class", "prototypes.html")] if has_prototypes else []
    gallery = _gallery(metrics, folder.shown, source.has_masks, bool(folder.refined))._replace(links=links)
    write_gallery(folder.directory / "index.html", gallery, entries)
    return metrics


def _gallery(metrics: dict[str, Any], shown: Sequence[str], has_masks: bool, is_refined: bool) -> Gallery:
    """Each method's seeds are cut at its own best threshold at first, where that is known."""
    scores = metrics.get("scores")
    absent = {key for key, is_there in (("truth", has_masks), ("refined", is_refined)) if not is_there}
    thresholds = {method: scores[method]["best"]["threshold"] if scores else FIXED for method in shown}
    return Gallery(
        f"{', '.join(map(title, shown[:-1]))} and {title(shown[-1])}",
        [one for one in _panes(shown) if one.key not in absent],
        [one for one in _looks(shown) if not absent & set(one.panes)],
        thresholds,
        rank=shown[-1],
        against="cam",
        summary=list(_summary(metrics, shown)),
    )


def _summary(metrics: dict[str, Any], shown: Sequence[str]) -> Iterator[str]:
    """Lines of text for the top of the page."""
    if "scores" in metrics:
        best = {method: metrics["scores"][method]["best"] for method in shown}
        found = (f"{title(method)} {100 * one['miou']:.1f} at {one['threshold']:.2f}" for method, one in best.items())
        yield f"mIoU of the seeds of {metrics['scored']} pictures, at the best threshold: {', '.join(found)}"
        yield from _pseudo_mask_line(metrics)
    else:
        yield "There are no masks to score against: thresholds start at 0.3 and are yours to choose."
    yield from skipped_line(metrics["skipped"])


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


def _pseudo_mask_line(metrics: dict[str, Any]) -> Iterator[str]:
    """What the refinement made of the seeds; no line where it is not known."""
    if "pseudo_masks" in metrics:
        protocol = metrics["protocol"]
        cut_at = "" if protocol["saliency"] else f" at {protocol['background']:g}"
        how = "CRF and saliency" if protocol["saliency"] else "CRF"
        miou = 100 * metrics["pseudo_masks"]["miou"]
        yield f"mIoU of the pseudo masks, {title(list(metrics['scores'])[-1])}{cut_at} and {how}: {miou:.1f}"


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """What a person wants to read of the metrics, line by line."""
    if "scores" in metrics:
        scores = metrics["scores"]
        yield from seed_tables(scores, metrics["protocol"]["class_names"])
        for one, other in zip([*scores][2:], ("cam", "lpcam"), strict=False):
            best, fixed = (100 * (scores[one][at]["miou"] - scores[other][at]["miou"]) for at in ("best", "fixed"))
            yield (
                f"{title(one)} against {title(other)} on {metrics['scored']} pictures: {best:+.1f} points of mIoU, "
                f"each at its own best threshold; {fixed:+.1f} at {scores['cam']['fixed']['threshold']:g}."
            )
        yield from _pseudo_mask_line(metrics)
    yield from empty_maps_line(metrics["empty_maps"])
    yield from skipped_line(metrics["skipped"])
