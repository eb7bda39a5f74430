"""Saliency maps, and a folder of them that another program made: 8-bit grey pictures, ID.png, one a photograph."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..data.findings import shown
from ..data.masks import check_size
from ..data.pictures import read_picture
from ..data.records import RecordSource
from ..machine.errors import UserError


class SaliencyMaps(Protocol):
    """Where saliency maps come from.

    Attributes:
        protocol: the entry of a protocol, a plain JSON value that is not false.
    """

    protocol: Any

    def prepare(self, source: RecordSource) -> None:
        """Make the maps of these pictures that are not there yet, where maps are made."""
        ...

    def inputs(self, name: str) -> tuple[Path, ...]:
        """The files of the picture of this id that others may change, `results.origins.Inputs`."""
        ...

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The map of the picture of this id and (H, W): uint8 (H, W), 255 where it is most salient."""
        ...


class SaliencyFolder:
    """A folder of saliency maps.

    Args:
        directory: the folder.

    Raises:
        UserError: it does not exist.
    """

    protocol = True

    def __init__(self, directory: str | Path):
        if not Path(directory).is_dir():
            raise UserError(f"{shown(directory)}: no such folder of saliency maps; name one with ID.png files.")
        self.directory = Path(directory)

    def prepare(self, source: RecordSource) -> None:
        """Nothing: the maps are there."""

    def inputs(self, name: str) -> tuple[Path, ...]:
        """The file of one picture."""
        return (self.directory / f"{name}.png",)

    def read(self, name: str, size: tuple[int, int]) -> np.ndarray:
        """The map of one picture.

        Args:
            name: its id.
            size: its (H, W).

        Returns:
            uint8 (H, W), 255 where the picture is most salient.

        Raises:
            UserError: the file cannot be read, is in colour, or has another size.
        """
        [file] = self.inputs(name)
        picture = read_picture(file, upright=False)
        if (picture != picture[..., :1]).any():
            raise UserError(f"{shown(file)}: the saliency map is a colour picture; save it as 8-bit grey.")
        check_size(picture[..., 0], size, file)
        return picture[..., 0]
