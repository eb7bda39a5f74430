"""A folder of heat maps, written picture by picture, resumable, and scored together.

    maps/ID.npz       classes (n,) and their names; for each method float16 (n, H, W), in [0, 1]; if the network
                      classifies, probabilities (c,) of all classes. No pickle.
    overlays/ID.jpg   picture, seed, truth, and the maps of every class, side by side
    seeds/ID.png      seed mask of the last method's maps as a palette PNG: 0 background, n + 1 class n; none where
                      there are more than 254 classes
    pseudo_masks/     the refined seeds (`Refinement`), unless refinement is off
    index.html        a gallery (`gallery`) to filter, sort and threshold; gallery/ holds its pictures. Of more
                      than 2,000 pictures only a sample has overlays and is in the gallery (`shown`)
    metrics.json      protocol and, if there are true masks, Table 1 and confusion matrices
    thresholds.png    mIoU over the seed threshold, if there are true masks
    protocol.json     how the maps were made
    origins.N.jsonl   which pictures and labels they were made from (`origins`)

The npz is written last: it marks a finished picture. (A picture without its seed, its pseudo mask, or the pages that it
should have, is done again.)
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config.registry import title
from ..data.masks import MAX_CLASSES, MaskFolder, expect_numbered
from ..data.records import Record, RecordSource
from ..machine import processes
from ..machine.errors import UserError
from ..machine.files import free_space, write_atomically
from ..refine.pictures import Refinement, cut
from ..report.curve import seed_curves
from ..report.gallery import write_layers
from ..report.names import counted
from ..report.overlays import jpeg, panel
from ..report.palette import mask_png
from ..report.table import empty_maps_line, seed_tables
from ..seeds import with_class_values
from .folder import PictureResults, skipped_line
from .gallery import gallery_layers, panes_of, pseudo_mask_line, shown_methods, write_heatmap_gallery
from .map_folder import MapFolder
from .origins import Inputs
from .picture_maps import PictureMaps
from .predictions import PSEUDO_MASKS
from .scoring import score_maps, score_masks
from .shown import Pages

# Bytes of maps that are said to be many, if they fit; and pictures whose sizes are asked for to tell.
_MUCH, _ASKED = 10e9, 100


class HeatMapFolder(PictureResults):
    """The folder, of one model and one protocol.

    Args:
        directory: the folder; created if missing.
        class_names: c names.
        methods: methods of the maps; seeds are cut from the last.
        protocol: how the maps are made, as plain JSON values; its "classes" tells which classes are mapped, and if it
            is "predicted", the gallery shows probabilities. A folder with another protocol is rejected.
        refinement: how pseudo masks are made from the last method's maps.
        pages: which pictures have overlays and a place in the gallery; "none": there is no gallery.

    Raises:
        UserError: see `ResultFolder`; or there are more classes than pseudo masks can number.
    """

    def __init__(
        self,
        directory: str | Path,
        class_names: tuple[str, ...],
        methods: tuple[str, ...],
        protocol: dict[str, Any],
        *,
        refinement: Refinement,
        pages: Pages = "sample",
    ):
        self.are_numbered = len(class_names) <= MAX_CLASSES
        if refinement:
            expect_numbered(len(class_names), "pseudo masks", "make heat maps alone, with --refine none")
        super().__init__(directory, protocol | refinement.protocol, what="heat maps")
        self.class_names, self.refinement, self.pages = class_names, refinement, pages
        self.maps = MapFolder(self.directory / "maps", methods)
        self.pseudo_masks = MaskFolder(self.directory / PSEUDO_MASKS)

    def marker(self, name: str) -> Path:
        """Its maps."""
        return self.maps.file(name)

    def outputs(self, name: str) -> list[Path]:
        """Its seed and its pseudo mask, where they are made, and its maps."""
        seeds = [self.file("seeds", name, "png")] if self.are_numbered else []
        refined = [self.file(PSEUDO_MASKS, name, "png")] if self.refinement else []
        return [*seeds, *refined, self.marker(name)]

    def missing(self, source: RecordSource, inputs: Inputs | None = None) -> list[int]:
        """As in `PictureResults`; what the refinement needs of the pictures is made meanwhile."""

        def all_inputs(name: str) -> tuple[Path, ...]:
            return (*(inputs(name) if inputs else ()), *self.refinement.inputs(name))

        missing = super().missing(source, all_inputs)
        self._say_size(source, missing)
        self.refinement.prepare(source)
        return missing

    def _remove_marker(self, source: RecordSource, index: int) -> None:
        """Also what the page of prototypes shows of the picture that was there before."""
        super()._remove_marker(source, index)
        for folder in self.directory.glob("prototypes/similarity/*"):
            (folder / f"{source.ids[index]}.png").unlink(missing_ok=True)

    def _say_size(self, source: RecordSource, missing: Sequence[int]) -> None:
        """Say how much the maps of many pictures will take, before hours of work end at a full disk."""
        sizes = []
        for index in missing[:: max(len(missing) // _ASKED, 1)]:
            with suppress(UserError):  # it will be skipped
                classes = 1 if source.labels is None else source.labels[index].sum()
                sizes.append(classes * math.prod(source.size(index)))
        needed = len(missing) * len(self.maps.methods) * np.float16().nbytes * np.mean(sizes or [0])
        free = free_space(self.directory)
        if free is not None and needed > min(_MUCH, free):
            tqdm.write(
                f"note: the maps of {len(missing)} pictures will take about {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB "
                f"are free in {self.directory}"
            )

    def write(self, record: Record, result: PictureMaps) -> None:
        """Write one picture's outputs.

        Args:
            record: the picture.
            result: its maps.
        """
        seed_maps = result.maps[self.maps.methods[-1]]
        seed = refined = None
        if self.are_numbered:
            seed = with_class_values(cut(seed_maps, self.refinement.background), result.classes)
        if self.refinement:
            refined = with_class_values(self.refinement.labels(record, seed_maps), result.classes)
        arrays = {}
        if result.probabilities is not None:
            arrays["probabilities"] = result.probabilities.astype(np.float32)
        if self.shows(record.id):
            self._write_pages(record, result, seed, refined)
        if seed is not None:
            write_atomically(self.file("seeds", record.id, "png"), mask_png(seed), durably=False)
        if refined is not None:
            write_atomically(self.pseudo_masks.file(record.id), mask_png(refined), durably=False)
        self.note_origin(record.id)
        self.maps.write(record.id, result.classes, self.class_names, result.maps, **arrays)

    def _write_pages(
        self, record: Record, result: PictureMaps, seed: np.ndarray | None, refined: np.ndarray | None
    ) -> None:
        """Write the overlays and the layers of the gallery."""
        names = [self.class_names[n] for n in result.classes]
        if result.probabilities is not None and record.labels is None:
            names = [f"{name} {result.probabilities[n]:.0%}" for name, n in zip(names, result.classes, strict=True)]
        picture = panel(
            record.image,
            {title(method): maps for method, maps in result.maps.items()},
            names,
            seed,
            record.mask,
            refined=refined,
            class_values=[int(n) + 1 for n in result.classes] if self.are_numbered else None,
        )
        layers = gallery_layers(record, result.classes, result.maps, refined)
        write_layers(self.directory, record.id, layers, panes_of(self.maps.methods))
        write_atomically(self.file("overlays", record.id, "jpg"), jpeg(picture), durably=False)

    def finish(
        self, source: RecordSource, skipped: Sequence[str], *, pages: Callable[[], Sequence[tuple[str, str]]] = list
    ) -> dict[str, Any] | None:
        """Score all pictures, each process its share, and write the page, once every process has written its share.

        Args:
            source: the pictures.
            skipped: one line for every picture that this process could not read.
            pages: writes further pages and returns links to them, each (text, file beside index.html); only asked in
                the first process.

        Returns:
            The contents of metrics.json; None in every process but the first.

        Raises:
            UserError: no picture could be read, or the folder cannot be written.
        """
        metrics = self.base_metrics(source, skipped)
        scores, of_pictures = score_maps(self.maps, source)
        metrics |= scores
        if "scores" in metrics and self.refinement:
            refined = score_masks(self.pseudo_masks, source)[0].get("scores")
            metrics |= {"pseudo_masks": refined} if refined else {}
        if not processes.is_first():
            return None
        if "scores" in metrics:
            seed_curves(self.directory / "thresholds.png", metrics["scores"], pictures=metrics["scored"])
        self.write_json("metrics.json", metrics)
        if self.pages == "none":
            self.remove_pages()
        else:
            write_heatmap_gallery(
                self.directory,
                self.maps,
                self.class_names,
                metrics,
                {name: of for name, of in of_pictures.items() if self.shows(name) and self.is_done(name)},
                has_masks=source.has_masks,
                refined=bool(self.refinement),
                links=pages(),
            )
        return metrics


def describe(metrics: dict[str, Any]) -> Iterator[str]:
    """Summarize the metrics for the terminal, line by line."""
    if "scores" in metrics:
        scores = metrics["scores"]
        yield from seed_tables(scores, metrics["protocol"]["class_names"])
        methods, pictures = shown_methods(list(scores)), counted(metrics["scored"], "picture")
        for baseline, method in pairwise(methods):
            best, fixed = (
                100 * (scores[method][at]["miou"] - scores[baseline][at]["miou"]) for at in ("best", "fixed")
            )
            yield (
                f"{title(method)} against {title(baseline)} on {pictures}: {best:+.1f} points of "
                f"mIoU, each at its own best threshold; {fixed:+.1f} at {scores[method]['fixed']['threshold']:g}."
            )
        yield from pseudo_mask_line(metrics)
    yield from empty_maps_line(metrics["empty_maps"])
    yield from skipped_line(metrics["skipped"])
