"""Finding what a folder holds: maps, ID.npz (map_folder.py), or masks, ID.png (data/masks.py).

The folder that infer.py writes holds such maps in its maps/, or such masks in its masks/.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..config.json import class_names_in
from ..data.findings import shown
from ..data.masks import MaskFolder
from ..data.records import RecordSource, Subset
from ..machine.errors import UserError
from .map_folder import MapFolder

PSEUDO_MASKS = "pseudo_masks"
"""Folder of the pseudo masks beside maps/."""


def open_maps(directory: str | Path, methods: Sequence[str] = (), *, ids: Sequence[str] = ()) -> MapFolder:
    """Open a folder of maps.

    Args:
        directory: the output folder of infer.py, or a folder of maps.
        methods: names of arrays; empty: all.
        ids: of the requested pictures; empty: all that have a file.

    Returns:
        The folder.

    Raises:
        UserError: as in `find_predictions`; or it holds masks, or has no maps of a method.
    """
    below = Path(directory) / "maps"
    where = below if below.is_dir() else Path(directory)
    folder = find_predictions(directory, ids or ids_in(where, "npz") or ids_in(where, "png") or ["ID"])
    if not isinstance(folder, MapFolder):
        raise UserError(f"{shown(folder.directory)} holds masks; name a folder of maps.")
    if unknown := [method for method in methods if method not in folder.methods]:
        raise UserError(f"{shown(folder.directory)} has no maps {unknown[0]!r}; it has {', '.join(folder.methods)}.")
    return MapFolder(folder.directory, methods or folder.methods)


def open_method(directory: str | Path, method: str = "", *, ids: Sequence[str] = ()) -> MapFolder:
    """Open a folder of maps, restricted to one method.

    Args:
        directory: the output folder of infer.py, or a folder of maps.
        method: name of its array; empty: the last of each file, which is the one that infer.py makes seeds from.
        ids: as in `open_maps`.

    Returns:
        The folder, with a single method.

    Raises:
        UserError: as in `open_maps`.
    """
    folder = open_maps(directory, (method,) if method else (), ids=ids)
    return MapFolder(folder.directory, folder.methods[-1:])


def pseudo_masks_beside(maps: MapFolder) -> MaskFolder | None:
    """The pseudo masks that infer.py wrote beside its maps; None: it wrote none."""
    beside = maps.directory.parent / PSEUDO_MASKS
    return MaskFolder(beside) if maps.directory.name == "maps" and beside.is_dir() else None


def mapped_pictures(source: RecordSource, directory: str | Path, method: str = "") -> tuple[RecordSource, MapFolder]:
    """The pictures of a source that have maps, and those maps, of one method; prints how many have none.

    Args:
        source: the pictures.
        directory: as in `open_method`.
        method: as in `open_method`.

    Returns:
        The pictures, and the folder.

    Raises:
        UserError: as in `open_method`; or the maps were made for other classes.
    """
    maps = open_method(directory, method, ids=source.ids)
    maps.expect_classes(source.class_names, ids=source.ids)
    mapped = [index for index, name in enumerate(source.ids) if maps.file(name).exists()]
    if left_out := len(source) - len(mapped):
        tqdm.write(f"{left_out} of {len(source)} pictures have no maps in {shown(maps.directory)}: left out")
    return (Subset(source, mapped) if left_out else source), maps


def ids_in(directory: Path, suffix: str) -> list[str]:
    """Sorted ids of all files with a suffix, in any case, including the folders they are in."""
    return sorted({file.relative_to(directory).with_suffix("").as_posix() for file in _files(directory, suffix)})


def read_protocol(folder: MapFolder | MaskFolder) -> dict[str, Any] | None:
    """The protocol.json that infer.py writes beside its maps/ or masks/; None for predictions of other programs.

    Raises:
        UserError: it cannot be read, or names no classes.
    """
    file = folder.directory.parent / "protocol.json"
    if folder.directory.name not in ("maps", "masks") or not file.exists():
        return None
    try:
        protocol = json.loads(file.read_text(encoding="utf-8"))
        class_names_in(protocol)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} cannot be read ({error}); run infer.py again into another --out.") from None
    return protocol


def find_predictions(directory: str | Path, ids: Sequence[str]) -> MapFolder | MaskFolder:
    """Detect whether a folder holds the output of infer.py, maps, or masks.

    Args:
        directory: the folder.
        ids: of the pictures whose predictions are requested.

    Returns:
        The folder; its methods are the float (n, H, W) arrays of the first picture that has a file.

    Raises:
        UserError: the folder does not exist, holds no predictions, or none of these pictures.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"{shown(directory)}: no such folder of predictions; name one with ID.npz or ID.png files.")
    if any((directory / "maps" / f"{name}.npz").exists() for name in ids):
        directory = directory / "maps"
    elif any(MaskFolder(directory / "masks").file(name).exists() for name in ids):
        directory = directory / "masks"
    if _has(directory, "npz"):
        folder = MapFolder(directory, ())
    elif _has(directory, "png"):
        folder = MaskFolder(directory)
    elif _has(directory, "npy"):
        raise UserError(
            f"{shown(directory)} holds only .npy files: pickles, which can run any code when they are opened and are "
            "never read here; convert each with np.savez('ID.npz', classes=keys, cam=high_res)."
        )
    else:
        raise UserError(f"{shown(directory)} holds no ID.npz and no ID.png; name a folder of maps or of masks.")
    example = next((name for name in ids if folder.file(name).exists()), None)
    if example is None:
        raise UserError(
            f"{shown(directory)} has no prediction for any of the {len(ids)} pictures of the data set: there is no "
            f"{shown(folder.file(ids[0]).name)}, for one; check the folder, and that it was made of these pictures."
        )
    if isinstance(folder, MaskFolder):
        return folder
    arrays = folder.read_all(example)
    methods = [name for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim == 3]
    if not methods:
        contents = ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in arrays.items()) or "nothing"
        raise UserError(
            f"{shown(folder.file(example))} holds no maps but {contents}; store float (n, H, W) arrays, one for each "
            "method, and classes (n,)."
        )
    return MapFolder(directory, methods)


def _has(directory: Path, suffix: str) -> bool:
    return next(_files(directory, suffix), None) is not None


def _files(directory: Path, suffix: str) -> Iterator[Path]:
    return (file for file in directory.rglob("*") if file.suffix.lower() == f".{suffix}")
