"""Pseudo masks from existing heat maps, by a training-free refinement, written to a folder (`results.masks`)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .. import __version__
from ..data.records import Record, RecordSource
from ..machine.errors import UserError
from ..machine.threads import map_ahead
from ..refine.pictures import Refinement
from ..seeds import with_class_values
from .folder import write_all
from .masks import MaskResults
from .predictions import mapped_pictures, read_protocol
from .shown import Pages


def refine_maps(
    maps: str | Path,
    method: str,
    source: RecordSource,
    out: str | Path,
    *,
    refinement: Refinement,
    pages: Pages,
) -> dict[str, Any] | None:
    """Refine the maps of every picture that has no mask yet, then score all pictures.

    Args:
        maps: folder of the heat maps.
        method: name of their array; empty: the last one in each file.
        source: the pictures; those without maps are left out and reported.
        out: output folder.
        refinement: the refinement.
        pages: which pictures have overlays and a place in the gallery.

    Returns:
        The contents of metrics.json; None in every process but the first.

    Raises:
        UserError: there are no such maps, they do not match the pictures, or the folder cannot be written.
    """
    source, heatmaps = mapped_pictures(source, maps, method)
    [method], classes = heatmaps.methods, len(source.class_names)
    protocol = {
        "version": __version__,
        "class_names": list(source.class_names),
        "maps": read_protocol(heatmaps) or Path(maps).name,
        "method": method,
        "background": None if refinement.salient else refinement.background,
        "crf": refinement.refine == "crf",
        **refinement.protocol,
    }
    folder = MaskResults(out, protocol, title="Pseudo masks", caption="pseudo mask", pages=pages)

    def write(_: int, record: Record, __: None) -> None:
        mapped, picture_maps = heatmaps.read_for(record, method, classes=classes)
        folder.write(record, with_class_values(refinement.labels(record, picture_maps), mapped))

    def inputs(name: str) -> tuple[Path, ...]:
        return (*heatmaps.inputs(name), *refinement.inputs(name))

    missing = folder.missing(source, inputs)
    refinement.prepare(source)
    skipped = write_all(_read(source, missing), write) if missing else []
    return folder.finish(source, skipped)


def _read(source: RecordSource, indices: Sequence[int]) -> Iterator[tuple[int, Record | UserError, None]]:
    """Yield (index, record or the UserError of reading it, None), with a progress bar."""

    def read(index: int) -> tuple[int, Record | UserError, None]:
        try:
            return index, source[index], None
        except UserError as error:
            return index, error, None

    yield from tqdm(map_ahead(read, indices), "pseudo masks", len(indices), unit="img")
