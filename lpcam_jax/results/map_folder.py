"""A folder of maps, one file per picture, checked as they are read.

    ID.npz   classes int (n,), and for every method one float (n, H, W) array in [0, 1]. No pickle.

An ID may contain folders.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from ..data.findings import listed, shown
from ..data.made_for import expect_classes
from ..data.records import Record
from ..machine.errors import UserError
from ..machine.files import read_arrays, write_arrays

_ASKED = 50  # files


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

    def read_all(self, name: str) -> dict[str, np.ndarray]:
        """Read all arrays of a picture's file, unchecked.

        Args:
            name: its id.

        Returns:
            {name: array}.

        Raises:
            UserError: the file cannot be read.
        """
        return _arrays(self.file(name))


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
