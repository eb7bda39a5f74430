"""Predictions in a folder, one file per picture, checked as they are read.

    ID.npz   maps: classes int (n,), and for every method one float (n, H, W) array in [0, 1]. No pickle.
    ID.png   a mask: palette or 8-bit grey, 0 background, 1..c the classes, 255 unsure

An ID may contain folders. The folder that infer.py writes holds such maps in its maps/, or such masks in its masks/.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..config.json import class_names_in
from ..data.findings import listed, shown
from ..data.made_for import expect_classes
from ..data.masks import MaskFolder
from ..data.records import Record, RecordSource, Subset
from ..machine.errors import UserError
from ..machine.files import read_arrays, write_arrays

_ASKED = 50  # files
PSEUDO_MASKS = "pseudo_masks"
"""Folder of the pseudo masks beside maps/."""


class MapFolder:
    """A folder of maps, ID.npz.

    Args:
        directory: the folder.
        methods: names of the arrays that hold maps; others are ignored.
    """

    def __init__(self, directory: Path, methods: Sequence[str]):
        self.directory, self.methods = directory, tuple(methods)

    def file(self, name: str) -> Path:
        """The path of a picture's maps, whether or not it exists."""
        return self.directory / f"{name}.npz"

    def inputs(self, name: str) -> tuple[Path, ...]:
        """The files that what is made from a picture's maps depends on, as `origins.Inputs`."""
        return (self.file(name),)

    def expect_classes(self, class_names: Sequence[str], *, ids: Sequence[str]) -> None:
        """Expect that the maps were made for these classes, in this order, as far as the folder or its files say it.

        Args:
            class_names: of the data set.
            ids: of its pictures; a few of those that have maps are asked.

        Raises:
            UserError: they were made for others.
        """
        expect_classes(self.directory, class_names)
        for file in islice((file for file in map(self.file, ids) if file.exists()), _ASKED):
            arrays = _arrays(file, ("classes", "names"))
            numbers, names = arrays.get("classes", np.empty(0)), arrays.get("names", np.empty(0))
            if names.dtype.kind != "U" or numbers.dtype.kind not in "iu" or names.shape != numbers.shape:
                continue  # of another program, or checked when its maps are read
            for number, name in zip(numbers.ravel().tolist(), names.ravel().tolist(), strict=True):
                if 0 <= number < len(class_names) and class_names[number] != name:
                    raise UserError(
                        f"{shown(file)} has a map of class {number + 1}, {listed([name])}, which is "
                        f"{listed([class_names[number]])} in the data set; name another folder, or choose its classes, "
                        "in their order, with --data.classes."
                    )

    def write(
        self,
        name: str,
        classes: np.ndarray,
        class_names: Sequence[str],
        maps: Mapping[str, np.ndarray],
        **more: np.ndarray,
    ) -> None:
        """Write the maps of one picture.

        Args:
            name: its id.
            classes: int (n,), of the maps.
            class_names: names of all classes.
            maps: for each method float (n, H, W); stored as float16.
            more: other arrays.

        Raises:
            UserError: the file cannot be written.
        """
        write_arrays(
            self.file(name),
            classes=classes.astype(np.int16),
            names=np.array([class_names[n] for n in classes], dtype=str),
            **more,
            **{method: stack.astype(np.float16, copy=False) for method, stack in maps.items()},
        )

    def read(self, name: str, *, classes: int) -> tuple[tuple[np.ndarray, dict[str, np.ndarray]], tuple[int, int]]:
        """The maps of one picture.

        Args:
            name: its id.
            classes: number of classes c.

        Returns:
            (classes int (n,), {method: float32 (n, H, W)}), and their (H, W).

        Raises:
            UserError: the file cannot be read, or does not hold such maps.
        """
        file = self.file(name)
        arrays = _arrays(file, ("classes", *self.methods))
        numbers = _checked_classes(arrays.get("classes", np.empty(0)), classes, file)
        maps = {method: _checked(arrays, method, len(numbers), file) for method in self.methods}
        sizes = {stack.shape[1:] for stack in maps.values()}
        if len(sizes) > 1:
            raise UserError(f"{shown(file)} holds maps of different sizes; store all at the size of the picture.")
        return (numbers, maps), sizes.pop()

    def read_classes(self, name: str, *, classes: int) -> np.ndarray:
        """The classes of a picture's maps, int (n,), without reading the maps.

        Args:
            name: its id.
            classes: number of classes c.

        Returns:
            int (n,).

        Raises:
            UserError: as in `read`.
        """
        return _checked_classes(self.read_one(name, "classes"), classes, self.file(name))

    def read_for(self, record: Record, method: str, *, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """The maps of a record, whose size they must have.

        Args:
            record: the picture.
            method: one of the methods.
            classes: number of classes c.

        Returns:
            Its classes int (n,), and their maps float32 (n, H, W).

        Raises:
            UserError: as in `read`; or the maps do not have the size of the picture.
        """
        (numbers, arrays), size = self.read(record.id, classes=classes)
        if size != record.image.shape[:2]:
            raise UserError(
                f"{shown(self.file(record.id))}: the maps are {size[1]}x{size[0]}, the picture "
                f"{record.image.shape[1]}x{record.image.shape[0]} (width x height); name the folder of maps of these "
                "pictures."
            )
        return numbers, arrays[method]

    def read_one(self, name: str, array: str) -> np.ndarray:
        """Read a single array of a picture's file, such as `classes` or `probabilities`.

        Args:
            name: its id.
            array: name of the array.

        Returns:
            The array.

        Raises:
            UserError: the file cannot be read, or does not have it.
        """
        arrays = _arrays(self.file(name), (array,))
        if array not in arrays:
            raise _unreadable(self.file(name), ValueError(f"it has no {array}"))
        return arrays[array]


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
    arrays = _arrays(folder.file(example))
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


def _arrays(file: Path, only: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    try:
        return read_arrays(file, only)
    except Exception as error:  # a damaged zip can raise anything
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"{shown(file)} cannot be read ({error}); delete it and run the command that wrote it again.")


def _checked_classes(numbers: np.ndarray, classes: int, file: Path) -> np.ndarray:
    if numbers.dtype.kind not in "iu" or numbers.ndim != 1:
        raise UserError(f"{shown(file)} holds no array classes, int (n,); store the class of each map, from 0.")
    if len(wrong := numbers[(numbers < 0) | (numbers >= classes)]):
        raise UserError(
            f"{shown(file)} has a map of class {wrong[0]}, but the data set has 0..{classes - 1}; "
            "count classes from 0, without background."
        )
    if len(np.unique(numbers)) < len(numbers):
        raise UserError(f"{shown(file)} has two maps of one class ({numbers.tolist()}); store one map per class.")
    return numbers.astype(int)


def _checked(arrays: dict[str, np.ndarray], method: str, count: int, file: Path) -> np.ndarray:
    maps = arrays.get(method)
    if maps is None:
        raise UserError(
            f"{shown(file)} has no maps {shown(method)}, but other files do; store the same methods in all files."
        )
    if maps.dtype.kind != "f" or maps.ndim != 3 or len(maps) != count:
        raise UserError(
            f"{shown(file)} holds {shown(method)} as {maps.dtype} {maps.shape} for {count} classes; "
            "store float (n, H, W), one map per class."
        )
    maps = maps.astype(np.float32)
    if not ((maps >= 0) & (maps <= 1)).all():  # NaN fails both
        values = "NaN" if np.isnan(maps).any() else f"values in [{maps.min():.3g}, {maps.max():.3g}]"
        raise UserError(f"{shown(file)} has {values} in {shown(method)}; store maps normalized to [0, 1].")
    return maps
